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
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.errors import SchemaError
from streaming.casting import to_numbers, to_strings
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
            f'[source] adapter {name!r} cannot be loaded: {error}. Write "package.module:function".'
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


def integers(block: RawBlock, name: str) -> NDArray[np.float64]:
    """Returns a column of whole numbers as float64[n], NaN where there is none."""
    values, _ = to_numbers(block.column(name, "adapter"), pa.int64(), f"{name} in {block.file}")
    return pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)


def split_counts(block: RawBlock, clicks: str, impressions: str) -> RawBlock:
    """Turns a row of counts into a clicked and an unclicked example, weighted by how many.

    Adds ``click`` (0 or 1), ``weight`` (NaN, hence a bad row, where the counts are impossible)
    and ``example_key`` (file, row and outcome). A row of weight 0 is left out.

    Args:
        block: Rows of counts.
        clicks: Column with the number of clicks.
        impressions: Column with the number of impressions.
    """
    n_clicks, n_shown = integers(block, clicks), integers(block, impressions)
    possible = (n_clicks >= 0) & (n_clicks <= n_shown)
    weights = np.stack([n_clicks, n_shown - n_clicks], axis=1)
    weights[~possible] = [np.nan, 0.0]
    parents, unclicked = np.nonzero(weights != 0.0)
    block = repeat_rows(block, parents)
    outcome = pa.array(1 - unclicked)
    place = pc.cast(pa.array(block.rows), pa.string())
    key = pc.binary_join_element_wise(
        pa.scalar(block.file), place, pc.cast(outcome, pa.string()), ":"
    )
    weight = pa.array(weights[parents, unclicked])
    return add_columns(block, {"click": outcome, "weight": weight, "example_key": key})


def explode(block: RawBlock, column: str, separator: str) -> tuple[RawBlock, pa.Array, pa.Array]:
    """Turns a row that holds a list in one string into one row per item.

    Args:
        block: Rows; one with an empty or null list vanishes.
        column: Column with the list.
        separator: Between items.

    Returns:
        The repeated rows, the items (string[n]) and their places in the list from 1 (int64[n]).
    """
    text = to_strings(block.column(column, "adapter"), f"{column} in {block.file}")
    nothing = pa.scalar(None, pa.string())
    lists = pc.split_pattern(pc.if_else(pc.equal(text, ""), nothing, text), separator)
    parents = pc.list_parent_indices(lists).to_numpy()
    first = np.searchsorted(parents, parents)
    places = pa.array(np.arange(len(parents)) - first + 1)
    return repeat_rows(block, parents.astype(np.int64)), pc.list_flatten(lists), places
