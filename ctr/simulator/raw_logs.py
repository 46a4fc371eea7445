"""Writes a simulated stream as raw logs, with the truth and a summary beside them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.errors import ConfigError
from ctr.simulator.config import WorldConfig
from ctr.simulator.event_log import EventLog
from ctr.simulator.pages import Impressions
from ctr.simulator.randomised import RANDOMISED
from ctr.simulator.schema_file import IMPRESSIONS, event_stem, schema_toml
from ctr.simulator.stream import Stream, impression_ids, open_stream
from ctr.simulator.tables import TRUTH, Texts, truth_schema, truth_table
from ctr.simulator.tally import Tally
from ctr.simulator.world import generator

_DELIVERY = 3
_IMPRESSION_COLUMNS = (
    "impression_id",
    "time_ms",
    "page_id",
    "position",
    "user_id",
    "ad_id",
    "advertiser_id",
    "device",
    "country",
    "query_text",
    "ad_title",
    "bid",
    "price",
    "advertiser_age_d",
    "treatment",
)


def write_events(
    output: str | Path,
    n_impressions: int,
    seed: int,
    config: WorldConfig | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Simulates raw logs into a new folder, which appears only when it is complete.

    The folder holds ``impressions-*.csv``, ``events-<label>-*.csv``, ``schema.toml`` for
    ``octr ingest``, ``world.json`` and ``truth/truth.parquet``. Equal arguments give equal bytes.

    Args:
        output: Folder to make; it must not exist or be empty.
        n_impressions: Impressions to simulate, spread over the configured days.
        seed: Source of all randomness, 0 or more.
        config: The world; the default one if None.
        progress: Called after every chunk with the impressions written so far.

    Returns:
        What was written to ``world.json``.

    Raises:
        ConfigError: the folder is in use or a number is out of range.
    """
    config = config or WorldConfig()
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"--output {folder} is in use. Choose a new or an empty folder.")
    stream = open_stream(n_impressions, seed, config)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (temporary / TRUTH).parent.mkdir(parents=True)
        summary = _write(temporary, stream, progress)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def _write(folder: Path, stream: Stream, progress: Callable[[int], None]) -> dict[str, Any]:
    world, config = stream.world, stream.world.config
    texts = Texts(world)
    tally = Tally(stream)
    faults = (config.duplicate_rate, config.malformed_rate, config.jitter_s)
    with ExitStack() as stack:

        def open_log(number: int, stem: str, header: tuple[str, ...], render: Any) -> EventLog:
            rng = generator(stream.seed, _DELIVERY, number)
            log = EventLog(folder, stem, header, render, "time_ms", faults, rng)
            return stack.enter_context(closing(log))

        logs = {
            IMPRESSIONS: open_log(
                0, IMPRESSIONS, _columns(config), lambda rows: _impressions(texts, rows)
            )
        }
        for number, name in enumerate(texts.labels, start=1):
            header = ("impression_id", "time_ms")
            logs[name] = open_log(number, event_stem(name), header, _events)
        truth_file = stack.enter_context(
            pq.ParquetWriter(folder / TRUTH, truth_schema(texts.labels), use_dictionary=False)
        )
        done = 0
        for shown, outcomes in stream:
            truth_file.write_table(truth_table(texts, shown, outcomes))
            tally.add(shown, outcomes)
            ids = impression_ids(shown, config.slots)
            logs[IMPRESSIONS].add(
                {f.name: getattr(shown, f.name) for f in dataclasses.fields(shown)}
            )
            for index, name in enumerate(texts.labels):
                where = np.flatnonzero(outcomes.happened[index])
                event_ms = shown.time_ms[where] + outcomes.delay_ms[index, where]
                logs[name].add({"impression_id": ids[where], "time_ms": event_ms})
            for log in logs.values():
                log.flush(int(shown.time_ms[-1]) - 1)
            done += len(shown)
            progress(done)
        for log in logs.values():
            log.finish()
    (folder / "schema.toml").write_text(schema_toml(config), encoding="utf-8")
    summary = tally.summary({name: log.counts for name, log in logs.items()})
    (folder / "world.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _columns(config: WorldConfig) -> tuple[str, ...]:
    return _IMPRESSION_COLUMNS + ((RANDOMISED,) if config.randomised else ())


def _impressions(texts: Texts, rows: Mapping[str, np.ndarray]) -> pa.Table:
    shown = Impressions(**{f.name: rows[f.name] for f in dataclasses.fields(Impressions)})
    columns = texts.columns(shown)
    columns |= {
        "impression_id": pa.array(impression_ids(shown, texts.slots)),
        "time_ms": pa.array(shown.time_ms),
        "page_id": pa.array(shown.page),
        "position": pa.array(shown.position),
    }
    return pa.table({name: columns[name] for name in _columns(texts.world.config)})


def _events(rows: Mapping[str, np.ndarray]) -> pa.Table:
    return pa.table({name: rows[name] for name in ("impression_id", "time_ms")})
