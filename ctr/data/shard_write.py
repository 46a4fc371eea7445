"""How the rows of a shard are laid out in its Parquet file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

#: A reader holds one row group at a time.
ROW_GROUP = 65_536


def write_rows(table: pa.Table, path: Path) -> None:
    """Writes rows for a reader that has to keep up with the learner.

    A shard is written once and read by every run. LZ4 therefore stands before smaller codecs, and
    numbers and times, which hardly repeat, before dictionaries of them.

    Args:
        table: Rows in event-time order.
        path: The file; replaced if it is there.
    """
    coded = [path for field in table.schema for path in _repeating(field)]
    pq.write_table(table, path, compression="lz4", row_group_size=ROW_GROUP, use_dictionary=coded)


def _repeating(field: pa.Field) -> list[str]:
    """Returns the Parquet path of a column whose values repeat, as a list of one or none."""
    if pa.types.is_floating(field.type) or pa.types.is_timestamp(field.type):
        return []
    if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
        return [f"{field.name}.list.element"]
    return [field.name]
