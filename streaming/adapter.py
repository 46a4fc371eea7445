"""Adapters: functions that reshape blocks of raw rows before they are checked.

An adapter is ``reshape(block: RawBlock) -> RawBlock``. It works on whole columns, may turn one row
into several (``repeat_rows``), drop rows that are no impressions, and add columns.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.errors import SchemaError
from streaming.formats.block import RawBlock

Adapter = Callable[[RawBlock], RawBlock]


def reshape(block: RawBlock, adapter: str) -> RawBlock:
    """Applies the adapter named ``package.module:function``; an empty name changes nothing."""
    return _load(adapter)(block) if adapter else block


@cache
def _load(name: str) -> Adapter:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SchemaError(
            f"[source] adapter {name!r} cannot be loaded: {error}. Write \"package.module:function\"."
        ) from None


def add_columns(block: RawBlock, columns: Mapping[str, pa.Array]) -> RawBlock:
    """Returns the block with further columns; one of the same name is replaced."""
    names = [name for name in block.table.schema.names if name not in columns]
    arrays = [block.table.column(name) for name in names]
    table = pa.RecordBatch.from_arrays([*arrays, *columns.values()], names=[*names, *columns])
    return replace(block, table=table)


def repeat_rows(block: RawBlock, parents: NDArray[np.int64]) -> RawBlock:
    """Returns the block with row ``parents[i]`` at place i; columns and row numbers follow."""
    table = block.table.take(pa.array(parents))
    return replace(block, table=table, rows=block.rows[parents])


def keep_rows(block: RawBlock, keep: NDArray[np.bool_]) -> RawBlock:
    """Returns the block without the rows where ``keep`` is false (they are not bad, just other)."""
    return replace(block, table=block.table.filter(pa.array(keep)), rows=block.rows[keep])
