"""Avazu: the hour of the day out of YYMMDDHH."""

from __future__ import annotations

import pyarrow.compute as pc

from streaming.adapter import add_columns
from streaming.casting import to_strings
from streaming.formats.block import RawBlock


def reshape(block: RawBlock) -> RawBlock:
    """Adds ``hour_of_day`` ("00" to "23")."""
    hour = to_strings(block.column("hour", "event_time"), f"hour in {block.file}")
    return add_columns(block, {"hour_of_day": pc.utf8_slice_codeunits(hour, 6, 8)})
