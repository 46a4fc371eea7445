"""MIND: a page "N1-0 N2-1" becomes one row per article; the history its newest clicks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.adapter import add_columns, explode
from streaming.formats.block import RawBlock

#: Clicks of the history that are kept, newest first.
HISTORY_LENGTH = 16


def reshape(block: RawBlock) -> RawBlock:
    """Adds ``item_id`` and ``click`` (null in test files, which hide it), shortens ``history``."""
    block = add_columns(block, {"history": _newest(block.column("history", "adapter"))})
    block, items, _ = explode(block, "impressions", " ")
    parts = pc.extract_regex(items, r"^(?P<item>.+?)(?:-(?P<click>[^-]*))?$")
    click = parts.field("click")
    hidden = pc.equal(click, "")
    return add_columns(
        block,
        {
            "item_id": parts.field("item"),
            "click": pc.if_else(hidden, pa.scalar(None, click.type), click),
        },
    )


def _newest(history: pa.Array) -> pa.Array:
    """Splits at blanks, reverses and cuts, on the flat values of all lists at once."""
    lists = pc.split_pattern(pc.cast(pc.fill_null(history, ""), pa.string()), " ")
    starts = lists.offsets.to_numpy()[:-1].astype(np.int64)
    lengths = pc.list_value_length(lists).to_numpy()
    empty = pc.equal(pc.fill_null(history, ""), "").to_numpy(zero_copy_only=False)
    kept = np.where(empty, 0, np.minimum(lengths, HISTORY_LENGTH)).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], kept)
    picked = np.repeat(starts + lengths - 1, kept) - inside
    values = lists.values.take(pa.array(picked))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
