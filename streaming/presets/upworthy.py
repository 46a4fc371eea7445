"""Upworthy: counts become weighted examples, the week YYYYWW a date, HTML tags are cut."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.adapter import add_columns, integers, split_counts
from streaming.casting import to_strings
from streaming.formats.block import RawBlock

_WEEK_S = 7 * 86_400


def reshape(block: RawBlock) -> RawBlock:
    """Adds ``week_start`` (microseconds, null if the week is impossible) and splits the counts."""
    weeks, inverse = np.unique(integers(block, "test_week"), return_inverse=True)
    starts = pa.array([_start_us(week) for week in weeks], pa.int64()).take(pa.array(inverse))
    lede = pc.replace_substring_regex(
        to_strings(block.column("lede", "adapter"), f"lede in {block.file}"), "<[^>]*>", " "
    )
    block = add_columns(block, {"week_start": starts, "lede": lede})
    return split_counts(block, "clicks", "impressions")


def _start_us(week: float) -> int | None:
    """Weeks are numbered 0 to 53 (``strftime`` style, not ISO): count them from 1 January."""
    year, number = divmod(int(week), 100) if week == week else (0, 0)
    if not (1970 <= year <= 9999 and number <= 53):
        return None
    first = datetime(year, 1, 1, tzinfo=UTC)
    return int(first.timestamp() + number * _WEEK_S) * 1_000_000
