"""Reads committed shards in order and cuts the stream into chunks for the learner.

A position in the stream is one number, the count of examples before it, so a checkpoint needs no
more than that to continue. Chunks are full but for the last one of the data, which is padded with
rows of weight 0.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.data.examples import Block, Examples
from ctr.data.manifest import Shard, file_sha256
from ctr.data.packing import pack, whole_query_places
from ctr.data.sampled import count_skipped, thin
from ctr.data.shard_check import check_footer, check_size, late, open_shard, read_group
from ctr.data.side import check_side, shard_column, side_values
from ctr.encoding import Encoder
from ctr.errors import SchemaError, StreamError
from ctr.hashing import fingerprint64
from ctr.schema import Schema

if TYPE_CHECKING:
    from ctr.api import Sampler


class ShardReader:
    """Iterates over the examples of a data folder.

    Args:
        data_dir: Folder with the manifest.
        schema: Its schema.
        shards: Its committed shards, in order.
        encoder: Encoder of the learner.
        labels: Labels the learner wants, T of them.
        allowed_lateness_us: How far event time may fall back behind the newest row before.
        side: Side columns that the recipe asks for.
        whole_queries: Never let the border of a batch cut a query; places that the next query
            does not fit in stay empty.
        sampler: Leaves rows out before they are encoded; positions go on counting them.

    Raises:
        SchemaError: the stream cannot carry a side column or has no queries.
    """

    def __init__(
        self,
        data_dir: Path,
        schema: Schema,
        shards: Sequence[Shard],
        encoder: Encoder,
        labels: Sequence[str],
        allowed_lateness_us: int = 0,
        side: Sequence[str] = (),
        whole_queries: bool = False,
        sampler: Sampler | None = None,
    ) -> None:
        check_side([*side, *(["query"] if whole_queries else [])], schema)
        self._side, self._whole_queries = tuple(side), whole_queries
        self.data_dir = data_dir
        self.shards = tuple(shards)
        self._schema, self._encoder, self._labels = schema, encoder, tuple(labels)
        self._lateness = allowed_lateness_us
        # Far in the past, with room for the lateness to be taken off.
        self._newest = int(np.iinfo(np.int64).min) // 2
        self._sampler = sampler
        marks = ["correction"] if schema.has("correction") else []
        self._frame = list(dict.fromkeys(["example_id", *schema.slices, *marks]))
        self._left_out = 0  # rows that a sampler left out since the last one it kept

    @property
    def n_rows(self) -> int:
        """Examples in all committed shards."""
        return sum(shard.n_rows for shard in self.shards)

    def extend(self, shards: Sequence[Shard]) -> None:
        """Takes over a manifest that has grown and checks what is new in it.

        Raises:
            StreamError: it does not begin with the shards known so far, or a new one cannot be
                read.
            SchemaError: a new shard lacks a column, or one has a type that cannot be used.
        """
        known = self.n_rows
        if tuple(shards[: len(self.shards)]) != self.shards:
            raise StreamError(
                f"{self.data_dir}: the manifest no longer begins with the {len(self.shards)} "
                "shards that were read from it. Restore it, or train into a new --run folder."
            )
        self.shards = tuple(shards)
        self.check(known)

    def chunks(
        self, shape: tuple[int, int], start: int = 0, stop: int | None = None
    ) -> Iterator[Examples]:
        """Yields chunks of ``K * B`` examples from position ``start``.

        Args:
            shape: Batches per chunk and examples per batch, (K, B).
            start: Position of the first example.
            stop: The end of a shard, at which the last chunk ends; the end of the data by default.

        Raises:
            StreamError: a shard is missing, damaged, out of order or shorter than committed, or
                a sampler leaves nothing over.
            SchemaError: a column is missing or of a wrong type, or a label is not 0 or 1.
        """
        counts: Counter[str] = Counter()
        # What the encoder counts in a row group belongs to the chunk of the group's first row,
        # so that it counts once wherever a run is interrupted.
        encoded: deque[tuple[int, dict[str, int]]] = deque()
        cut = whole_query_places if self._whole_queries else None
        position = start
        waiting = None
        for blocks, places in pack(self._blocks(start, encoded, stop), shape, cut, counts):
            n = sum(len(block.time_us) for block in blocks)
            skipped = sum(block.n_skipped for block in blocks)
            while encoded and encoded[0][0] < position + n + skipped:
                counts.update(encoded.popleft()[1])
            if skipped:
                counts["sampled_out"] += skipped
            if waiting is not None:
                yield waiting
            waiting = Examples(tuple(blocks), position, n, dict(counts), places, skipped)
            position = waiting.stop
            counts.clear()
        if waiting is not None:
            yield self._last(waiting)
        elif stop is None and start < self.n_rows:
            raise StreamError(
                f"{self.data_dir}: the sampler leaves out every example from position {start:,} "
                "on. Raise its rates, or widen its time window."
            )

    def _last(self, examples: Examples) -> Examples:
        """Returns the stream's last chunk with the rows that were left out after it."""
        n = self._left_out
        if not n:
            return examples
        counts = {**examples.counts, "sampled_out": examples.counts.get("sampled_out", 0) + n}
        return replace(examples, counts=counts, n_skipped=examples.n_skipped + n)

    def check(self, start: int = 0) -> None:
        """Checks the shards from position ``start`` on, so that a long run need not fail late.

        Only sizes and footers are read; checksums and values are checked as the rows go by.

        Raises:
            StreamError: a shard is missing, cut, unreadable, or older than one before it.
            SchemaError: a shard lacks a column, or one has a type that cannot be used.
        """
        before, newest = 0, int(np.iinfo(np.int64).min)
        for shard in self.shards:
            path = self.data_dir / shard.file
            if shard.n_rows:
                if shard.min_time_us < newest - self._lateness:
                    raise late(f"{path}", newest - shard.min_time_us, self._lateness)
                newest = max(newest, shard.max_time_us)
            if before + shard.n_rows > start:
                check_size(path, shard)
                with open_shard(path) as file:
                    self._check_footer(file, path, shard)
            before += shard.n_rows

    def _check_footer(self, file: pq.ParquetFile, path: Path, shard: Shard) -> None:
        columns, labels = self._columns(), self._labels
        check_footer(file, path, shard, columns, self._schema, self._encoder, labels)

    def _blocks(
        self, start: int, encoded: deque[tuple[int, dict[str, int]]], stop: int | None
    ) -> Iterator[Block]:
        """Yields blocks from ``start`` to ``stop``; notes counts by position of the row group."""
        before = self._left_out = 0
        for shard in self.shards:
            if stop is not None and before >= stop:
                return
            if before + shard.n_rows > start:
                for row, block, counts in self._shard_blocks(shard, max(0, start - before)):
                    if before + row >= start:
                        encoded.append((before + row, counts))
                    if len(block.time_us):
                        yield block
            else:
                self._newest = max(self._newest, shard.max_time_us)
            before += shard.n_rows

    def _shard_blocks(self, shard: Shard, skip: int) -> Iterator[tuple[int, Block, dict[str, int]]]:
        """Yields the first row of a row group, its rows from ``skip`` on and its counts."""
        path = self.data_dir / shard.file
        verify(path, shard)
        wanted = self._columns()
        with open_shard(path) as probe:
            self._check_footer(probe, path, shard)
            fields = probe.schema_arrow
        strings = [name for name in wanted if pa.types.is_string(fields.field(name).type)]
        row = 0
        with open_shard(path, strings) as file:
            for group in range(file.num_row_groups):
                n = file.metadata.row_group(group).num_rows
                if row + n > skip:
                    # Encoded as a whole even if its first rows are skipped: see ``chunks``.
                    batch = read_group(file, path, group, wanted)
                    block, counts = self._block(batch, path, row, max(0, skip - row))
                    yield row, block, counts
                else:
                    self._pass_over(file, path, group)
                row += n

    def _columns(self) -> list[str]:
        """Columns that are read, without repeats."""
        names = ["example_id", "event_time", *self._encoder.columns, *self._labels]
        names += [
            c for c in ("query_id", "weight", "sampling_rate", "correction") if self._schema.has(c)
        ]
        names += [*self._schema.slices, *map(shard_column, self._side)]
        return list(dict.fromkeys(names))

    def _pass_over(self, file: pq.ParquetFile, path: Path, group: int) -> None:
        """Notes the newest event time of rows that were learned before."""
        if file.metadata.row_group(group).num_rows:
            batch = read_group(file, path, group, ["event_time"])
            times = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
            self._newest = max(self._newest, int(times.max()))

    def _block(
        self, batch: pa.RecordBatch, path: Path, row: int, skip: int
    ) -> tuple[Block, dict[str, int]]:
        """Returns the rows of a row group from its row ``skip`` on, and what was counted."""
        times = batch.column("event_time")
        if times.null_count:
            at = int(np.flatnonzero(np.asarray(times.is_null()))[0])
            raise StreamError(
                f"{path}, row {row + at + 1:,}: event_time is null. Fix the writer, or ingest "
                "again."
            )
        time_us = times.cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._check_order(time_us, path, row)
        query = None
        if self._schema.has("query_id"):
            query = fingerprint64(batch.column("query_id"))
        empty = np.empty((len(time_us), 0), np.int32)
        block = Block(
            empty,
            empty.astype(np.float32),
            np.column_stack([self._label(batch, name, path, row) for name in self._labels]),
            self._weights(batch, path, row),
            time_us,
            query,
            {name: side_values(batch, name) for name in self._side},
            batch.select(self._frame),
        )
        factors = None
        if self._sampler is not None and self._sampler.drops:
            factors = self._sampler.factors(block)
            batch, block = thin(batch, block, factors)
        encoded = self._encoder.encode(batch, source=str(path))
        block = replace(block, ids=encoded.ids, numeric=encoded.numeric)
        if factors is None:
            return block.cut(skip, len(time_us)), encoded.counts
        block, self._left_out = count_skipped(block, factors, skip, self._left_out)
        return block, encoded.counts

    def _check_order(self, time_us: NDArray[np.int64], path: Path, row: int) -> None:
        newest = np.maximum.accumulate(np.concatenate([[self._newest], time_us]))
        behind = np.flatnonzero(time_us < newest[:-1] - self._lateness)
        if len(behind):
            at = behind[0]
            by_us = int(newest[at] - time_us[at])
            raise late(f"{path}, row {row + at + 1:,}", by_us, self._lateness)
        self._newest = int(newest[-1])

    def _label(self, batch: pa.RecordBatch, name: str, path: Path, row: int) -> NDArray[np.float32]:
        column = batch.column(name)
        values = column.fill_null(-1).to_numpy(zero_copy_only=False)
        known = ~np.asarray(column.is_null())
        bad = np.flatnonzero(known & (values != 0) & (values != 1))
        if len(bad):
            raise SchemaError(
                f"{path}, row {row + bad[0] + 1:,}: label {name!r} must be 0 or 1, received "
                f"{values[bad[0]]}. Fix the writer, or ingest again with a label threshold."
            )
        return values.astype(np.float32)

    def _weights(self, batch: pa.RecordBatch, path: Path, row: int) -> NDArray[np.float32]:
        weights = np.ones(batch.num_rows, np.float32)
        for name, low in (("weight", 0.0), ("sampling_rate", np.nextafter(0.0, 1.0))):
            if not self._schema.has(name):
                continue
            values = batch.column(name).cast(pa.float32()).to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(~((values >= low) & np.isfinite(values)))
            if name == "sampling_rate":
                bad = np.union1d(bad, np.flatnonzero(values > 1.0))
            if len(bad):
                raise SchemaError(
                    f"{path}, row {row + bad[0] + 1:,}: {name} must be a finite number "
                    f"{'>= 0' if name == 'weight' else 'in (0, 1]'}, received {values[bad[0]]}."
                )
            weights = weights * values if name == "weight" else weights / values
        return weights


def verify(path: Path, shard: Shard) -> None:
    """Checks that a file is the one that was committed.

    Raises:
        StreamError: it is missing, or its size or checksum differs.
    """
    check_size(path, shard)
    if file_sha256(path) != shard.sha256:
        raise StreamError(
            f"{path}: damaged: its SHA-256 is not {shard.sha256[:12]}..., which was committed. "
            "Restore it or ingest again."
        )
