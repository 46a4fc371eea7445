"""Side tables joined to the log by one key (the author of a video, the genres of a film)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.adapter import add_columns
from streaming.casting import to_strings
from streaming.formats.block import RawBlock
from streaming.inputs import InputFile, cut_pieces, read_blocks
from streaming.source import Lookup, Source


@dataclass(frozen=True)
class SideTable:
    """A lookup and the files found for it; read once per worker and kept in memory.

    Attributes:
        lookup: Key and columns.
        files: Its files; none leaves the columns empty.
        source: How the files are read.
    """

    lookup: Lookup
    files: tuple[InputFile, ...]
    source: Source

    def join(self, block: RawBlock) -> RawBlock:
        """Adds the columns that the log lacks; a key without entry gives null."""
        missing = [name for name in self.lookup.columns if not block.has(name)]
        if not missing:
            return block
        if not self.files:
            empty = pa.nulls(block.table.num_rows, pa.string())
            return add_columns(block, dict.fromkeys(missing, empty))
        name = self.lookup.key_in_log or self.lookup.key
        what = f"lookup key {name!r}"
        keys = to_strings(block.column(name, what), f"{what} in {block.file}")
        entries = _entries(self)
        found = pc.index_in(keys, value_set=entries.column(self.lookup.key))
        return add_columns(block, {n: entries.column(n).take(found) for n in missing})


#: Tables this process has read already.
_TABLES: dict[tuple[Lookup, tuple[InputFile, ...]], pa.RecordBatch] = {}


def _entries(table: SideTable) -> pa.RecordBatch:
    key = (table.lookup, table.files)
    if key not in _TABLES:
        _TABLES[key] = _read(table.lookup, table.files, table.source)
    return _TABLES[key]


def _read(lookup: Lookup, files: tuple[InputFile, ...], source: Source) -> pa.RecordBatch:
    batches = []
    wanted = (lookup.key, *lookup.columns)
    for piece in cut_pieces(list(files), source):
        for block in read_blocks(piece, source, wanted):
            arrays = [block.column(name, f"lookup by {lookup.key!r}") for name in wanted]
            batches.append(pa.RecordBatch.from_arrays(arrays, names=list(wanted)))
    table = pa.Table.from_batches(batches).combine_chunks()
    keys = to_strings(_whole(table.column(lookup.key)), f"lookup key {lookup.key!r}")
    # The first entry of a repeated key counts.
    _, first = np.unique(np.asarray(keys.to_pylist(), dtype=object).astype(str), return_index=True)
    rows = pa.array(np.sort(first))
    columns = {name: _whole(table.column(name)).take(rows) for name in lookup.columns}
    return pa.RecordBatch.from_pydict({lookup.key: keys.take(rows), **columns})


def _whole(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
