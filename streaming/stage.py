"""First step of ingest: a piece of the log, parsed and checked, sorted by time, put on disk.

Rows wait for their shard, and keys for their partition, in Arrow files under the output folder.
Only references to them travel through Beam's shuffles (see ``streaming.spill``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.pvalue import TaggedOutput
from numpy.typing import NDArray

from ctr.schema import Schema
from streaming.adapter import add_columns, reshape
from streaming.dedup_join import IMPRESSION, key_batches
from streaming.files import replace_file
from streaming.formats.block import BadRow, RawBlock
from streaming.inputs import IMPRESSIONS, Piece, read_blocks
from streaming.lookup import SideTable
from streaming.source import Source, raw_columns
from streaming.spill import Spilled, spill
from streaming.validate import event_columns, validate_events, validate_impressions

#: A piece of a compressed file becomes several parts; this many fit below the next piece.
PARTS_PER_PIECE = 1 << 20


@dataclass(frozen=True)
class Part:
    """Rows on disk, sorted by event time.

    Attributes:
        number: Place in the log: parts in ascending order hold its rows in file order.
        rows: The batch, in shard layout.
        n_rows: Rows.
        min_time_us: Smallest event time.
        max_time_us: Largest event time.
    """

    number: int
    rows: Spilled
    n_rows: int
    min_time_us: int
    max_time_us: int

    def load(self) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
        """Returns the batch, mapped, and its event times."""
        batch = self.rows.map()
        return batch, batch.column("event_time").cast(pa.int64()).to_numpy()


@dataclass(frozen=True)
class Reading:
    """How a piece becomes rows: everything a worker needs to know.

    Attributes:
        schema: What the examples are.
        source: How the log is read.
        tables: Side tables to join.
        piece_bytes: Aimed size of a block of text.
        strict: True takes a key that no JSON line of a block has for a missing column.
    """

    schema: Schema
    source: Source
    tables: tuple[SideTable, ...]
    piece_bytes: int
    strict: bool = False

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """Raw columns to read; empty reads all (an adapter that does not list its columns)."""
        source = self.source
        if source.adapter and not source.read_columns:
            return ()
        keys = tuple(table.lookup.key_in_log or table.lookup.key for table in self.tables)
        return tuple(
            dict.fromkeys((*raw_columns(self.schema, source), *source.read_columns, *keys))
        )

    def blocks(self, piece: Piece) -> Iterator[RawBlock]:
        """Yields the raw rows of a piece, reshaped, with the columns of the side tables."""
        if piece.file.role != IMPRESSIONS:
            wanted = event_columns(self.source.events[piece.file.role], self.schema, self.source)
            yield from read_blocks(piece, self.source, wanted, self.piece_bytes)
            return
        for block in read_blocks(piece, self.source, self.wanted, self.piece_bytes):
            if piece.file.format == "jsonl" and not self.strict:
                joined = {name for table in self.tables for name in table.lookup.columns}
                block = with_absent(block, [n for n in self.wanted if n not in joined])
            block = reshape(block, self.source.adapter)
            for table in self.tables:
                block = table.join(block)
            yield block


def with_absent(block: RawBlock, wanted: list[str]) -> RawBlock:
    """Adds null columns for keys that no line of a block of JSON has."""
    nothing = pa.nulls(block.table.num_rows)
    return add_columns(block, {name: nothing for name in wanted if not block.has(name)})


class StagePiece(beam.DoFn):
    """Piece -> :class:`Part`; also ``keys``, ``(partition, Spilled)``, and ``counts``.

    Files get names that depend on the piece alone and are put in place by a rename, so a bundle
    that is run twice leaves one copy.
    """

    def __init__(
        self, reading: Reading, stage_dir: Path, dead_dir: Path, n_partitions: int
    ) -> None:
        self.reading = reading
        self.stage_dir = stage_dir
        self.dead_dir = dead_dir
        self.n_partitions = n_partitions

    def process(self, piece: Piece) -> Iterator[Any]:
        """Reads, checks and stages one piece."""
        for i, block in enumerate(self.reading.blocks(piece)):
            number = piece.index * PARTS_PER_PIECE + i
            counts: Counter[str] = Counter()
            if piece.file.role == IMPRESSIONS:
                bad = yield from self._impressions(block, number, counts)
            else:
                bad = yield from self._events(block, piece.file.role, number, counts)
            bad = [*block.bad, *bad]
            counts["rows_read"] += block.n_read
            counts["rows_bad"] += len(bad)
            counts.update(f"bad.{row.reason}" for row in bad)
            if bad:
                _write_dead(self.dead_dir / f"{number:013d}.parquet", piece.file.name, bad)
            yield TaggedOutput("counts", counts)

    def _impressions(
        self, block: RawBlock, number: int, counts: Counter[str]
    ) -> Generator[Any, None, list[BadRow]]:
        schema, source = self.reading.schema, self.reading.source
        valid = validate_impressions(block, schema, source)
        counts.update(valid.counts)
        counts["impressions"] += valid.batch.num_rows
        batch, times, keys = valid.batch, valid.times, valid.keys
        if len(times) and np.any(times[1:] < times[:-1]):
            order = pa.array(np.argsort(times, kind="stable"))
            batch, times = batch.take(order), times[order.to_numpy()]
            keys = keys.take(order) if keys is not None else None
        if len(times):
            (rows,) = spill(self.stage_dir / f"{number:013d}.arrow", [batch])
            yield Part(number, rows, len(times), int(times[0]), int(times[-1]))
            if keys is not None:
                yield from self._keys(keys, times, IMPRESSION, number)
        return valid.bad

    def _events(
        self, block: RawBlock, role: int, number: int, counts: Counter[str]
    ) -> Generator[Any, None, list[BadRow]]:
        schema, source = self.reading.schema, self.reading.source
        event = source.events[role]
        ids, times, bad = validate_events(block, event, schema, source)
        counts[f"events.{event.label}.rows"] += len(times)
        yield from self._keys(ids, times, role + 1, number)
        return bad

    def _keys(
        self, keys: pa.Array, times: NDArray[np.int64], kind: int, number: int
    ) -> Iterator[TaggedOutput]:
        batches = dict(key_batches(keys, times, kind, number, self.n_partitions))
        if batches:
            spilled = spill(self.stage_dir / f"{number:013d}.keys", [*batches.values()])
            for keyed in zip(batches, spilled, strict=True):
                yield TaggedOutput("keys", keyed)


def _write_dead(path: Path, file: str, bad: list[BadRow]) -> None:
    table = pa.table(
        {
            "file": pa.array([file] * len(bad), pa.string()),
            "row": pa.array([row.row for row in bad], pa.int64()),
            "reason": pa.array([row.reason for row in bad], pa.string()),
            "raw": pa.array([row.raw for row in bad], pa.string()),
        }
    ).sort_by("row")
    with replace_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
