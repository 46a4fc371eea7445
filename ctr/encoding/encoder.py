"""The encoder: Arrow batches to embedding rows and numbers, without TensorFlow."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.encoding import bags, columns, numbers, raw
from ctr.encoding.layout import Layout, Slot, layout_of
from ctr.errors import ConfigError
from ctr.farmhash import EMPTY
from ctr.hashing import ID_MASK, cross, ids, salt64, take_by_index, to_rows
from ctr.schema import Schema

if TYPE_CHECKING:
    import tensorflow as tf

#: Rows are int32.
MAX_ROWS = (1 << 31) - 1
#: Id of null and of the empty string.
_NULL_ID = np.uint64(EMPTY & ID_MASK)


@dataclass(frozen=True)
class Encoded:
    """A batch as the model reads it.

    Attributes:
        ids: int32[n, n_slots], C-contiguous: rows of the embedding table, 0 where a bag is short.
        numeric: float32[n, M]: unbinned numeric features, NaN where missing.
        counts: What was out of the ordinary, by ``reason.feature``: ``numeric_missing`` and
            ``numeric_nonfinite`` (NaN or infinite) in values, ``bag_truncated`` in tokens.
    """

    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    counts: dict[str, int] = field(default_factory=dict)


class Encoder:
    """Encodes batches of one schema for an embedding table of ``n_rows`` rows.

    Equal strings of one salt always get the same row, in every process and on every machine.

    Args:
        schema: The features.
        n_rows: Rows of the table, row 0 (padding) included.

    Raises:
        ConfigError: ``n_rows`` is out of range.
    """

    def __init__(self, schema: Schema, n_rows: int) -> None:
        if not 2 <= n_rows <= MAX_ROWS:
            raise ConfigError(
                f"the embedding table needs 2 to {MAX_ROWS:,} rows, received {n_rows:,}."
            )
        self.schema = schema
        self.n_rows = n_rows
        self.layout: Layout = layout_of(schema)
        self.salts = {
            s.feature.name: salt64(s.feature.salt or s.feature.name) for s in self.layout.slots
        }
        self._crossed = {part for slot in self.layout.plain for part in slot.feature.cross}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that ``encode`` and the serving signature read (no crosses)."""
        return tuple(f.name for f in self.schema.features if not f.cross)

    def encode(self, batch: pa.RecordBatch | pa.Table, source: str = "the batch") -> Encoded:
        """Encodes a batch; columns that are no feature's are ignored.

        Args:
            batch: n rows.
            source: Where the batch comes from, for error messages.

        Raises:
            SchemaError: a column is missing or has a type its feature cannot be read from.
        """
        n = batch.num_rows
        out = Encoded(
            _array((n, self.layout.n_slots), np.int32),
            _array((n, len(self.layout.numeric)), np.float32),
        )
        counts: Counter[str] = Counter()
        start = 0
        for part in _parts(batch):
            stop = start + part.num_rows
            self._encode_part(part, out.ids[start:stop], out.numeric[start:stop], counts, source)
            start = stop
        out.counts.update({reason: count for reason, count in counts.items() if count})
        return out

    def signature(self) -> dict[str, tf.TensorSpec]:
        """Returns the inputs of ``graph_encode`` by column name, with an open batch size."""
        from ctr.encoding import graph

        return graph.signature(self)

    def graph_encode(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes raw tensors inside a TensorFlow graph, bit-equal to ``encode``.

        Args:
            inputs: By column name: a categorical string[B]; a numeric float32[B], NaN where
                missing; a bag string[B, L] padded with "" at any L, or string[B] with separator
                or text.

        Returns:
            ids int32[B, n_slots] and numeric float32[B, M].

        Raises:
            SchemaError: a column is missing.
        """
        from ctr.encoding import graph

        return graph.encode(self, inputs)

    def raw_columns(
        self, batch: pa.RecordBatch | pa.Table, source: str = "the batch"
    ) -> dict[str, NDArray[Any]]:
        """Turns a batch into NumPy arrays that fit ``signature``.

        Returns:
            By column name, as for ``graph_encode``; strings are object arrays, null is "".

        Raises:
            SchemaError: as ``encode``.
        """
        if isinstance(batch, pa.Table):
            batch = _one_batch(batch)
        features = [feature for feature in self.schema.features if not feature.cross]
        return {
            f.name: raw.raw_column(columns.column(batch, f, source), f, source) for f in features
        }

    def _encode_part(
        self,
        batch: pa.RecordBatch,
        out: NDArray[np.int32],
        numeric: NDArray[np.float32],
        counts: Counter[str],
        source: str,
    ) -> None:
        id64s: dict[str, NDArray[np.uint64]] = {}
        for slot in self.layout.plain:
            if not slot.feature.cross:
                array = columns.column(batch, slot.feature, source)
                out[:, slot.start] = self._encode_plain(slot, array, id64s, counts, source)
        for slot in self.layout.plain:
            if slot.feature.cross:
                combined = cross(*[id64s[part] for part in slot.feature.cross])
                out[:, slot.start] = self._rows(combined, slot)
        for slot in self.layout.bags:
            feature = slot.feature
            bag = bags.tokens(columns.column(batch, feature, source), feature, source)
            counts[f"bag_truncated.{feature.name}"] += bags.encode_bag(
                bag, feature, self.salts[feature.name], self.n_rows, out[:, slot.start : slot.stop]
            )
        for place, feature in enumerate(self.layout.numeric):
            array = columns.column(batch, feature, source)
            numeric[:, place] = numbers.finite(array, feature, counts, source)

    def _encode_plain(
        self,
        slot: Slot,
        array: pa.Array,
        id64s: dict[str, NDArray[np.uint64]],
        counts: Counter[str],
        source: str,
    ) -> NDArray[np.int32]:
        """Returns the rows int32[n] of a column; leaves its ids for the crosses it is part of."""
        feature = slot.feature
        if feature.bins:
            id64 = numbers.bin_ids(numbers.finite(array, feature, counts, source), feature)
        else:
            array = columns.strings(array, feature, source)
            if not pa.types.is_dictionary(array.type):
                id64 = ids(array)
            elif len(array.dictionary) > len(array):
                # A short slice of a column with a long dictionary.
                id64 = ids(array.dictionary_decode())
            else:
                return self._encode_dictionary(slot, array, id64s)
        if feature.name in self._crossed:
            id64s[feature.name] = id64
        return self._rows(id64, slot)

    def _encode_dictionary(
        self, slot: Slot, array: pa.DictionaryArray, id64s: dict[str, NDArray[np.uint64]]
    ) -> NDArray[np.int32]:
        """Hashes every dictionary entry once and looks the rows up."""
        entries = np.append(ids(array.dictionary), _NULL_ID)
        if slot.feature.name in self._crossed:
            id64s[slot.feature.name] = take_by_index(entries[:-1], array, entries[-1])
        rows = self._rows(entries, slot)
        return take_by_index(rows[:-1], array, rows[-1])

    def _rows(self, id64: NDArray[np.uint64], slot: Slot) -> NDArray[np.int32]:
        return to_rows(id64, self.salts[slot.feature.name], self.n_rows)


def _array(shape: tuple[int, int], dtype: type[np.generic]) -> NDArray[Any]:
    """Returns a zeroed array whose memory is Arrow's.

    It is aligned as TensorFlow wants it, and comes back without a system call when the next row
    group is encoded, in whichever thread.
    """
    size = math.prod(shape)
    buffer = pa.allocate_buffer(size * np.dtype(dtype).itemsize)
    out = np.frombuffer(buffer, dtype, size).reshape(shape)
    out.fill(0)
    return out


def _parts(batch: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    if isinstance(batch, pa.RecordBatch):
        return [batch]
    # An empty table may have no batch at all; its columns are checked nevertheless.
    return batch.to_batches() or [_one_batch(batch)]


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.concat_arrays(c.unify_dictionaries().chunks)
            if c.num_chunks
            else pa.array([], c.type)
            for c in table.columns
        ],
        names=table.schema.names,
    )
