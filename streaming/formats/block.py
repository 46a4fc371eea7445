"""A block of raw rows with the place each came from: what every reader yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.errors import SchemaError, nearest


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        row: Physical row in its file, counted from 1 (a header is row 1).
        reason: What is wrong, in words, without the row's values, so that equal faults count
            together.
        raw: The row as it stood in the file.
    """

    row: int
    reason: str
    raw: str


@dataclass(frozen=True)
class RawBlock:
    """Some consecutive rows of one file, as columns.

    Attributes:
        table: The raw columns. Text formats give strings, others their own types.
        rows: int64[n], physical row of each row of ``table``; an adapter that turns one row into
            several repeats it.
        file: Name shown to users, relative to the input folder.
        raw: Gives the original text of physical rows.
        names: Columns of the file, those left unread included (for messages).
        clock: Index of the physical row 0 on the clock of ``event_time = "row"``.
        n_read: Physical rows read for this block, bad ones included.
        bad: Rows the reader had to give up.
        typed: True if the file itself gives its columns types (Parquet).
    """

    table: pa.RecordBatch
    rows: NDArray[np.int64]
    file: str
    raw: Callable[[NDArray[np.int64]], list[str]]
    names: tuple[str, ...] = ()
    clock: int = 0
    n_read: int = 0
    bad: tuple[BadRow, ...] = ()
    typed: bool = False

    def column(self, name: str, what: str) -> pa.Array:
        """Returns a raw column.

        Raises:
            SchemaError: the file has no such column; the message names the nearest one.
        """
        index = self.table.schema.get_field_index(name)
        if index < 0:
            known = dict.fromkeys((*self.names, *self.table.schema.names))
            raise SchemaError(
                f"{what} in {self.file}: there is no column {name!r}: {nearest(name, known)}. "
                "Set `column` or fix the file."
            )
        return self.table.column(index)

    def has(self, *names: str) -> bool:
        """True if the block carries all the named columns."""
        return all(self.table.schema.get_field_index(name) >= 0 for name in names)
