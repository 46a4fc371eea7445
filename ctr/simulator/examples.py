"""Simulated examples that are already joined, in the columns of an ingested shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ctr.data.manifest import Shard, commit, file_sha256
from ctr.data.shard_write import write_rows
from ctr.errors import StreamError
from ctr.schema import Feature, Label, Schema
from ctr.simulator.config import WorldConfig
from ctr.simulator.randomised import RANDOMISED
from ctr.simulator.stream import Stream, open_stream
from ctr.simulator.tables import TRUTH, Texts, example_table, truth_schema, truth_table


@dataclass(frozen=True)
class Simulated:
    """A simulated stream in memory.

    Attributes:
        schema: Features, labels and columns of ``examples``.
        examples: One row per impression in time order, in shard columns.
        truth: One row per impression in the same order; see :func:`truth_table`.
    """

    schema: Schema
    examples: pa.Table
    truth: pa.Table


def simulated_schema(config: WorldConfig) -> Schema:
    """Returns the schema of the simulated stream, whose raw columns are those of its logs."""
    return Schema(
        name="simulated",
        features=(
            Feature("user_id"),
            Feature("ad_id"),
            Feature("advertiser_id"),
            Feature("device"),
            Feature("country"),
            Feature("query_text", kind="bag", text=True, max_length=8),
            Feature("ad_title", kind="bag", text=True, max_length=8),
            Feature("bid", kind="numeric", log=True),
            Feature("price", kind="numeric", log=True),
            Feature("advertiser_age_d", kind="numeric", log=True),
            Feature("slot", column="position", ui=True),
            Feature("treatment", ui=True),
        ),
        labels=tuple(Label(x.name, delay_s=x.window_s) for x in config.labels),
        columns={
            "example_id": ("impression_id",),
            "event_time": ("time_ms",),
            "query_id": ("page_id",),
            "position": ("position",),
        },
        side=(RANDOMISED,) if config.randomised else (),
        slices=("treatment", "device", "slot"),
        dedup=("impression_id",),
    )


def simulate_examples(
    n_impressions: int, seed: int, config: WorldConfig | None = None
) -> Simulated:
    """Simulates a stream into memory; equal arguments give equal tables.

    Args:
        n_impressions: Rows to simulate, spread over the configured days.
        seed: Source of all randomness, 0 or more.
        config: The world; the default one if None.

    Raises:
        ConfigError: a number that is out of range.
    """
    config = config or WorldConfig()
    examples, truths = [], []
    for batch, truth in example_batches(open_stream(n_impressions, seed, config)):
        examples.append(batch)
        truths.append(truth)
    return Simulated(simulated_schema(config), pa.concat_tables(examples), pa.concat_tables(truths))


def example_batches(stream: Stream) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yields (examples, truth) tables chunk by chunk in time order."""
    texts = Texts(stream.world)
    for shown, outcomes in stream:
        yield example_table(texts, shown, outcomes), truth_table(texts, shown, outcomes)


def write_data(
    data_dir: str | Path,
    n_impressions: int,
    seed: int,
    config: WorldConfig | None = None,
    shard_rows: int = 65_536,
) -> Schema:
    """Writes a data folder as ``octr ingest`` would, and the truth to ``truth/truth.parquet``.

    Args:
        data_dir: A new or empty folder.
        n_impressions: Rows to simulate.
        seed: Source of all randomness, 0 or more.
        config: The world; the default one if None.
        shard_rows: Most rows of one shard.

    Returns:
        The schema that was written.

    Raises:
        StreamError: the folder already holds something.
        ConfigError: a number that is out of range.
    """
    config = config or WorldConfig()
    stream = open_stream(n_impressions, seed, config)
    folder = Path(data_dir)
    if folder.exists() and any(folder.iterdir()):
        raise StreamError(f"{folder} is not empty. Choose a new folder for simulated data.")
    (folder / "shards").mkdir(parents=True)
    (folder / TRUTH).parent.mkdir()
    schema = simulated_schema(config)
    shards: list[Shard] = []
    pending: list[pa.Table] = []
    columns = truth_schema([label.name for label in config.labels])
    with pq.ParquetWriter(folder / TRUTH, columns, compression="zstd") as truth_file:
        for examples, truth in example_batches(stream):
            truth_file.write_table(truth)
            rows = pa.concat_tables([*pending, examples])
            while rows.num_rows >= shard_rows:
                shards.append(_write_shard(folder, len(shards), rows.slice(0, shard_rows)))
                rows = rows.slice(shard_rows)
            pending = [rows] if rows.num_rows else []
    shards.extend(_write_shard(folder, len(shards), rows) for rows in pending)
    commit(folder, schema, shards)
    return schema


def _write_shard(folder: Path, sequence: int, rows: pa.Table) -> Shard:
    path = folder / "shards" / f"{sequence:05d}.parquet"
    write_rows(rows.combine_chunks(), path)
    times = rows.column("event_time").cast(pa.int64()).to_numpy()
    return Shard(
        sequence=sequence,
        file=f"shards/{path.name}",
        n_rows=rows.num_rows,
        size_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        min_time_us=int(times[0]),
        max_time_us=int(times[-1]),
        # Pages are simulated in time order, so nothing earlier can follow.
        watermark_us=int(times[-1]),
    )
