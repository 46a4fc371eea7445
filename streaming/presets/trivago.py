"""trivago: a click-out with its list "a|b|c" becomes one row per item."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.adapter import add_columns, explode, keep_rows
from streaming.formats.block import RawBlock


def reshape(block: RawBlock) -> RawBlock:
    """Explodes the challenge's own rows; rows that are items already pass unchanged.

    Adds ``clickout_id``, ``position``, ``list_length``, ``impressed_item_id`` and ``clicked``
    (null where the challenge hides the reference).
    """
    if not block.has("impressions"):
        return block
    action = pc.equal(block.column("action_type", "adapter"), "clickout item")
    listed = block.column("impressions", "adapter").is_valid()
    shown = pc.fill_null(pc.and_(action, listed), False).to_numpy(zero_copy_only=False)
    block, items, places = explode(keep_rows(block, shown), "impressions", "|")
    parents = np.cumsum(places.to_numpy() == 1) - 1
    lengths = np.bincount(parents)[parents] if len(parents) else parents
    clicked = pc.equal(items, block.column("reference", "adapter"))
    clickout = pc.binary_join_element_wise(
        block.column("session_id", "adapter"), block.column("step", "adapter"), "_"
    )
    return add_columns(
        block,
        {
            "clickout_id": clickout,
            "position": places,
            "list_length": pa.array(lengths),
            "impressed_item_id": items,
            "clicked": pc.cast(clicked, pa.int8()),
        },
    )
