"""Reads committed shards in order and cuts the stream into chunks for the learner.

A position in the stream is one number, the count of examples before it, so a checkpoint needs no
more than that to continue. Chunks are full but for the last one of the data, which is padded with
rows of weight 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.data.manifest import Shard, file_sha256
from ctr.encoding import Encoder
from ctr.errors import SchemaError, StreamError
from ctr.hashing import fingerprint64
from ctr.schema import Schema


class Block(NamedTuple):
    """Encoded rows, with what reports need beside them.

    Attributes:
        ids: int32[n, S].
        numeric: float32[n, M]; NaN means missing.
        labels: float32[n, T]; -1 means unknown.
        weights: float32[n], importance divided by the sampling rate.
        time_us: int64[n], event time.
        query: uint64[n], hash of the query id, or None where the stream has none.
        frame: The raw columns of example id and slices.
    """

    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    time_us: NDArray[np.int64]
    query: NDArray[np.uint64] | None
    frame: pa.RecordBatch

    def cut(self, start: int, stop: int) -> Block:
        """Returns the rows ``start .. stop - 1`` without copying."""
        arrays = [part if part is None else part[start:stop] for part in self[:-1]]
        return Block(*arrays, self.frame.slice(start, stop - start))

    def __len__(self) -> int:
        raise TypeError("a Block has columns, not a length; use len(block.time_us)")


@dataclass(frozen=True)
class Examples:
    """One chunk of the stream.

    Attributes:
        blocks: The rows, in order, as cut from the row groups they came from.
        start: Examples of the stream before this chunk.
        n_rows: Rows in this chunk.
        counts: What the encoder counted since the chunk before.
    """

    blocks: tuple[Block, ...]
    start: int
    n_rows: int
    counts: dict[str, int]

    @property
    def stop(self) -> int:
        """Position after this chunk."""
        return self.start + self.n_rows

    def padded(self, name: str, shape: tuple[int, int]) -> NDArray[Any]:
        """Returns a column as ``[K, B, ...]``; rows beyond the data are 0."""
        parts = [getattr(block, name) for block in self.blocks]
        missing = shape[0] * shape[1] - self.n_rows
        if missing:
            parts.append(np.zeros((missing, *parts[0].shape[1:]), parts[0].dtype))
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.ascontiguousarray(joined).reshape((*shape, *joined.shape[1:]))


class ShardReader:
    """Iterates over the examples of a data folder.

    Args:
        data_dir: Folder with the manifest.
        schema: Its schema.
        shards: Its committed shards, in order.
        encoder: Encoder of the learner.
        labels: Labels the learner wants, T of them.
        allowed_lateness_us: How far event time may fall back behind the newest row before.
    """

    def __init__(
        self,
        data_dir: Path,
        schema: Schema,
        shards: Sequence[Shard],
        encoder: Encoder,
        labels: Sequence[str],
        allowed_lateness_us: int = 0,
    ) -> None:
        self.data_dir = data_dir
        self.shards = tuple(shards)
        self._schema, self._encoder, self._labels = schema, encoder, tuple(labels)
        self._lateness = allowed_lateness_us
        self._newest = np.iinfo(np.int64).min

    @property
    def n_rows(self) -> int:
        """Examples in all committed shards."""
        return sum(shard.n_rows for shard in self.shards)

    def chunks(self, shape: tuple[int, int], start: int = 0) -> Iterator[Examples]:
        """Yields chunks of ``K * B`` examples from position ``start``.

        Raises:
            StreamError: a shard is missing, damaged, out of order or shorter than committed.
            SchemaError: a shard lacks a column, or a label is not 0 or 1.
        """
        size = shape[0] * shape[1]
        pending: list[Block] = []
        have = 0
        position = start
        counts: Counter[str] = Counter()
        for block in self._blocks(start, counts):
            at, n = 0, len(block.time_us)
            while at < n:
                take = min(size - have, n - at)
                pending.append(block.cut(at, at + take))
                at, have = at + take, have + take
                if have == size:
                    yield Examples(tuple(pending), position, size, dict(counts))
                    position, pending, have = position + size, [], 0
                    counts.clear()
        if have:
            yield Examples(tuple(pending), position, have, dict(counts))

    def _blocks(self, start: int, counts: Counter[str]) -> Iterator[Block]:
        before = 0
        for shard in self.shards:
            if before + shard.n_rows > start:
                yield from self._shard_blocks(shard, max(0, start - before), counts)
            else:
                self._newest = max(self._newest, shard.max_time_us)
            before += shard.n_rows

    def _shard_blocks(self, shard: Shard, skip: int, counts: Counter[str]) -> Iterator[Block]:
        path = self.data_dir / shard.file
        verify(path, shard)
        wanted = self._columns()
        with pq.ParquetFile(path) as probe:
            names = probe.schema_arrow.names
            strings = [
                name for name in wanted
                if name in names and pa.types.is_string(probe.schema_arrow.field(name).type)
            ]  # fmt: skip
        for name in wanted:
            if name not in names:
                raise SchemaError(
                    f"{path}: column {name!r} is missing; the shard has {', '.join(names)}. "
                    "Ingest again with the present schema."
                )
        row = 0
        with pq.ParquetFile(path, read_dictionary=strings, memory_map=True) as file:
            for group in range(file.num_row_groups):
                n = file.metadata.row_group(group).num_rows
                if row + n > skip:
                    table = file.read_row_group(group, columns=wanted, use_threads=False)
                    batch = table.combine_chunks().to_batches()[0]
                    cut = max(0, skip - row)
                    yield self._block(batch.slice(cut), path, row + cut, counts)
                row += n

    def _columns(self) -> list[str]:
        names = ["example_id", "event_time", *self._encoder.columns, *self._labels]
        names += [c for c in ("query_id", "weight", "sampling_rate") if self._schema.has(c)]
        return list(dict.fromkeys([*names, *self._schema.slices]))

    def _block(self, batch: pa.RecordBatch, path: Path, row: int, counts: Counter[str]) -> Block:
        encoded = self._encoder.encode(batch, source=str(path))
        counts.update(encoded.counts)
        time_us = batch.column("event_time").cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._check_order(time_us, path, row)
        query = None
        if self._schema.has("query_id"):
            query = fingerprint64(batch.column("query_id"))
        return Block(
            encoded.ids,
            encoded.numeric,
            np.column_stack([self._label(batch, name, path, row) for name in self._labels]),
            self._weights(batch, path, row),
            time_us,
            query,
            batch.select(["example_id", *self._schema.slices]),
        )

    def _check_order(self, time_us: NDArray[np.int64], path: Path, row: int) -> None:
        newest = np.maximum.accumulate(np.concatenate([[self._newest], time_us]))
        late = np.flatnonzero(time_us < newest[:-1] - self._lateness)
        if len(late):
            at = late[0]
            raise StreamError(
                f"{path}, row {row + at + 1:,}: event time goes back by "
                f"{(newest[at] - time_us[at]) / 1e6:,.6f} s, more than the allowed lateness of "
                f"{self._lateness / 1e6:g} s. Ingest the log again (it sorts), or raise "
                "--allowed-lateness."
            )
        self._newest = int(newest[-1])

    def _label(
        self, batch: pa.RecordBatch, name: str, path: Path, row: int
    ) -> NDArray[np.float32]:
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
    if not path.is_file():
        raise StreamError(f"{path} is in the manifest but not on disk. Restore it or ingest again.")
    size = path.stat().st_size
    if size != shard.size_bytes or file_sha256(path) != shard.sha256:
        raise StreamError(
            f"{path}: damaged or truncated: expected {shard.size_bytes:,} bytes with SHA-256 "
            f"{shard.sha256[:12]}..., received {size:,} bytes. Restore it or ingest again."
        )
