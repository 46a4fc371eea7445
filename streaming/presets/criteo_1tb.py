"""Criteo 1TB: event time from the file's day and the row's place in it."""

from __future__ import annotations

import re

import pyarrow as pa

from ctr.errors import StreamError
from streaming.adapter import add_columns
from streaming.formats.block import RawBlock

_DAY_US = 86_400_000_000
#: The longest day has just under 200 M rows: at this pace none runs into the next day.
_ROW_US = 400


def reshape(block: RawBlock) -> RawBlock:
    """Adds ``event_time_us``.

    Raises:
        StreamError: the file's name holds no day.
    """
    day = re.search(r"day_(\d+)", block.file.rpartition("/")[2])
    if day is None:
        raise StreamError(f"{block.file}: expected a name such as day_7 or day_7.gz. Rename it.")
    times = int(day[1]) * _DAY_US + (block.rows - 1) * _ROW_US
    return add_columns(block, {"event_time_us": pa.array(times)})
