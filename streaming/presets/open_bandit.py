"""Open Bandit: policy and campaign from the path of a CSV file, items named within a campaign."""

from __future__ import annotations

from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from streaming.adapter import add_columns
from streaming.casting import to_strings
from streaming.formats.block import RawBlock


def reshape(block: RawBlock) -> RawBlock:
    """Adds ``campaign``, ``policy`` and ``item`` (campaign and item id)."""
    n_rows = block.table.num_rows
    path = PurePosixPath(block.file)
    folders = ("", *path.parts)
    named = {"campaign": path.stem, "behavior_policy": folders[-3] if len(folders) > 3 else ""}
    columns = {
        name: to_strings(block.column(name, "adapter"), name)
        if block.has(name)
        else pa.array([value] * n_rows, pa.string())
        for name, value in named.items()
    }
    item_id = to_strings(block.column("item_id", "adapter"), f"item_id in {block.file}")
    item = pc.binary_join_element_wise(columns["campaign"], item_id, ":")
    return add_columns(
        block, {"campaign": columns["campaign"], "policy": columns["behavior_policy"], "item": item}
    )
