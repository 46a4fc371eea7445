"""Last step of ingest: the rows of one shard, gathered, put in event-time order and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput
from numpy.typing import NDArray

from ctr.data.manifest import Shard, file_sha256
from ctr.data.shard_write import write_rows
from ctr.schema import Schema
from streaming.dedup_join import NO_TIME
from streaming.files import scratch_file
from streaming.shard_layout import TIME
from streaming.shard_plan import ShardPlan, TimeGrid
from streaming.source import Source
from streaming.stage import Part

SHARD_FOLDER = "shards"


@dataclass(frozen=True)
class Stretch:
    """Rows ``low`` to ``high - 1`` of a staged part."""

    part: Part
    low: int
    high: int


class CountTimes(beam.DoFn):
    """Part -> histogram of its event times on the grid."""

    def process(self, part: Part, grid: TimeGrid) -> Iterator[Any]:
        """Counts one part."""
        yield grid.count(part.load()[1])


class CountDropped(beam.DoFn):
    """Verdicts -> negative histogram of the dropped rows."""

    def process(self, verdicts: pa.RecordBatch, grid: TimeGrid) -> Iterator[Any]:
        """Counts one batch."""
        dropped = verdicts.filter(verdicts.column("dropped"))
        bins, counts = grid.count(dropped.column("time").to_numpy())
        yield bins, -counts


class AssignParts(beam.DoFn):
    """Part -> ``(shard, Stretch)`` for every shard that its times touch."""

    def process(self, part: Part, plan: ShardPlan) -> Iterator[tuple[int, Stretch]]:
        """Assigns one part."""
        for k, low, high in plan.overlapping(part.load()[1]):
            yield k, Stretch(part, low, high)


class AssignVerdicts(beam.DoFn):
    """Verdicts -> ``(shard, RecordBatch)``."""

    def process(
        self, verdicts: pa.RecordBatch, plan: ShardPlan
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Assigns one batch; those at a border go to both shards."""
        ordered = verdicts.sort_by("time")
        for k, low, high in plan.overlapping(ordered.column("time").to_numpy()):
            # A copy: CoGroupByKey pickles its values, and a pickled slice takes its parent along.
            yield k, ordered.take(pa.array(np.arange(low, high)))


class WriteShard(beam.DoFn):
    """``(shard, stretches and verdicts)`` -> :class:`Shard`; also ``counts``.

    The file name holds a digest of the content: writing twice gives one file, and a new ingest
    never touches the files of an earlier one.
    """

    def __init__(self, schema: Schema, source: Source, data_dir: Path) -> None:
        self.schema = schema
        self.source = source
        self.data_dir = data_dir

    def process(
        self, element: tuple[int, dict[str, Iterable[Any]]], plan: ShardPlan
    ) -> Iterator[Any]:
        """Writes one shard."""
        k, inputs = element
        stretches = sorted(inputs["stretches"], key=lambda s: s.part.number)
        labels = tuple(event.label for event in self.source.events)
        table = gather(stretches, list(inputs.get("verdicts", ())), labels)
        table = table.slice(int(plan.skips[k]), int(plan.takes[k]))
        folder = self.data_dir / SHARD_FOLDER
        with scratch_file(folder) as temporary:
            write_rows(table, temporary)
            digest = file_sha256(temporary)
            size = temporary.stat().st_size
            name = f"{k:05d}-{digest[:12]}.parquet"
            temporary.replace(folder / name)
        yield _shard(k, name, table, digest, size)
        counts = Counter({"examples": table.num_rows})
        for label in self.schema.labels:
            values = table.column(label.name).to_numpy()
            counts[f"positives.{label.name}"] += int(np.nansum(values))
            counts[f"unknown.{label.name}"] += table.column(label.name).null_count
        yield TaggedOutput("counts", counts)


def _shard(k: int, name: str, table: pa.Table, digest: str, size: int) -> Shard:
    times = table.column("event_time").cast(pa.int64())
    first, last = times[0].as_py(), times[-1].as_py()
    return Shard(
        sequence=k,
        file=f"{SHARD_FOLDER}/{name}",
        n_rows=table.num_rows,
        size_bytes=size,
        sha256=digest,
        min_time_us=first,
        max_time_us=last,
        watermark_us=last,
    )


def gather(
    stretches: list[Stretch], verdicts: list[pa.RecordBatch], labels: tuple[str, ...]
) -> pa.Table:
    """Returns the kept rows of some stretches in event-time order, with the labels of events.

    Args:
        stretches: In order of their parts, so that equal times keep the log's order.
        verdicts: What the join decided; rows outside the stretches are ignored.
        labels: Labels that come as events, in the order of the verdict columns.
    """
    decided = pa.Table.from_batches(verdicts).combine_chunks() if verdicts else None
    pieces, times = [], []
    for stretch in stretches:
        batch, part_times = stretch.part.load()
        batch = batch.slice(stretch.low, stretch.high - stretch.low)
        part_times = part_times[stretch.low : stretch.high]
        if decided is not None:
            batch, keep = _apply(batch, stretch, decided, labels)
            part_times = part_times[keep]
        pieces.append(batch)
        times.append(part_times)
    table = pa.Table.from_batches(pieces)
    merged = np.concatenate(times)
    if np.any(merged[1:] < merged[:-1]):
        table = table.combine_chunks().take(pa.array(np.argsort(merged, kind="stable")))
    return table


def _apply(
    batch: pa.RecordBatch, stretch: Stretch, decided: pa.Table, labels: tuple[str, ...]
) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
    """Drops rows and sets labels of one stretch."""
    keep = np.ones(batch.num_rows, np.bool_)
    rows = decided.column("row").to_numpy() - stretch.low
    mine = (decided.column("part").to_numpy() == stretch.part.number) & (rows >= 0)
    at = np.flatnonzero(mine & (rows < batch.num_rows))
    rows = rows[at]
    keep[rows[decided.column("dropped").to_numpy()[at]]] = False
    for i, label in enumerate(labels):
        times = np.full(batch.num_rows, NO_TIME, np.int64)
        times[rows] = decided.column(f"label_{i}").to_numpy()[at]
        known = times != NO_TIME
        stamps = pa.array(times, mask=~known).cast(TIME)
        for name, column in ((label, pa.array(known.astype(np.int8))), (f"{label}_time", stamps)):
            batch = batch.set_column(batch.schema.get_field_index(name), name, column)
    return (batch if keep.all() else batch.filter(pa.array(keep))), keep
