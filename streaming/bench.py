"""``octr bench ingest``: rows per second from a Criteo-like log with a separate click log."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from ctr.schema import Feature, Label, Schema
from streaming.source import Events, Impressions, Source

HELP = "rows per second of ingest, join included"
N_INTS, N_CATEGORIES = 13, 26
WINDOW_S = 1800.0
_START_MS = 1_700_000_000_000
_CLICK_RATE = 0.04
_LONGEST_DELAY_S = 2400.0


def criteo_like() -> tuple[Schema, Source]:
    """Returns the schema and source of the log that :func:`write_log` writes."""
    features = [Feature(f"i{i}", kind="numeric", log=True) for i in range(N_INTS)]
    features += [Feature(f"c{i}") for i in range(N_CATEGORIES)]
    schema = Schema(
        name="bench",
        features=tuple(features),
        labels=(Label("click"),),
        columns={"example_id": ("id",), "event_time": ("ts",)},
    )
    source = Source(
        impressions=Impressions(input=("impressions*.tsv",)),
        events=(Events(label="click", input=("clicks*.tsv",), window_s=WINDOW_S),),
    )
    return schema, source


def write_log(folder: Path, rows: int, seed: int) -> int:
    """Writes ``impressions.tsv`` (id, ts, 13 integers, 26 hex categories) and ``clicks.tsv``.

    Returns:
        The number of impressions that have a click inside the window.
    """
    rng = np.random.default_rng(seed)
    ids = pa.array(np.char.add("r", np.arange(rows).astype("U")))
    times = _START_MS + np.sort(rng.integers(0, max(rows, 1) * 20, rows))
    columns: dict[str, pa.Array] = {"id": ids, "ts": pa.array(times)}
    for i in range(N_INTS):
        columns[f"i{i}"] = pa.array(rng.geometric(0.02, rows), mask=rng.random(rows) < 0.2)
    for i in range(N_CATEGORIES):
        values = rng.integers(0, 1 << 32, int(10 ** (1 + 5 * i / N_CATEGORIES)))
        words = pa.array([f"{value:08x}" for value in values])
        columns[f"c{i}"] = words.take(pa.array((len(values) * rng.random(rows) ** 3).astype(int)))
    options = arrow_csv.WriteOptions(delimiter="\t", quoting_style="none")
    arrow_csv.write_csv(pa.table(columns), folder / "impressions.tsv", options)
    clicked = np.flatnonzero(rng.random(rows) < _CLICK_RATE)
    delay_ms = (rng.random(len(clicked)) * _LONGEST_DELAY_S * 1000).astype(np.int64)
    clicks = {"id": ids.take(pa.array(clicked)), "ts": pa.array(times[clicked] + delay_ms)}
    arrow_csv.write_csv(pa.table(clicks), folder / "clicks.tsv", options)
    return int((delay_ms <= WINDOW_S * 1000).sum())


def bench_ingest(rows: int = 500_000, seed: int = 0) -> dict[str, Any]:
    """Ingests a made-up log once, join included, on the local runner with one worker.

    Args:
        rows: Impressions.
        seed: Of the log.

    Returns:
        ``rows``, ``rows_per_second`` (wall), ``rows_per_cpu_second``, ``shard_bytes_per_row``,
        ``peak_memory_bytes`` of the process, ``joined`` and ``joined_expected``.
    """
    from ctr.data import manifest
    from streaming.ingest import ingest

    schema, source = criteo_like()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        log.mkdir()
        expected = write_log(log, rows, seed)
        wall, cpu = time.perf_counter(), time.process_time()
        data = Path(folder) / "data"
        summary = ingest(schema, source, [str(log)], data)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = sum(shard.size_bytes for shard in manifest.load(data)[1])
    return {
        "rows": summary.examples,
        "rows_per_second": round(rows / wall),
        "rows_per_cpu_second": round(rows / cpu),
        "shard_bytes_per_row": round(size / rows, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "joined": summary.events["click"]["joined"],
        "joined_expected": expected,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``octr bench ingest``."""
    parser.add_argument("--rows", type=int, default=500_000, help="impressions (500,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the log")


def run(args: argparse.Namespace) -> int:
    """Prints the result of :func:`bench_ingest` as JSON; 1 if the join lost or invented a click."""
    result = bench_ingest(args.rows, args.seed)
    print(json.dumps(result, indent=1))
    return int(result["joined"] != result["joined_expected"])
