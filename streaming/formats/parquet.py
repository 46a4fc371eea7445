"""Parquet: row groups are the pieces; columns keep their types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.errors import StreamError
from streaming.formats.block import RawBlock

BLOCK_ROWS = 131_072


def open_parquet(path: str) -> pq.ParquetFile:
    """Opens a file.

    Raises:
        StreamError: it is no Parquet file or is cut off.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, EOFError) as error:
        raise damaged(path, error) from None


def damaged(path: str, error: Exception) -> StreamError:
    """Returns the error for a file whose contents cannot be read."""
    return StreamError(
        f"{path} is not a whole Parquet file ({str(error).splitlines()[0]}). It was cut off or "
        "damaged: write or fetch it again, or leave it out of --input."
    )


def read_row_groups(
    path: str, groups: range, wanted: tuple[str, ...], file: str, first_row: int, clock: int
) -> Iterator[RawBlock]:
    """Yields the rows of some row groups in blocks of at most ``BLOCK_ROWS``.

    Args:
        path: The file.
        groups: Indices of row groups.
        wanted: Columns to keep; empty keeps all.
        file: Name for messages.
        first_row: Rows of the file before these groups.
        clock: See :class:`RawBlock`.

    Raises:
        StreamError: the file is damaged.
    """
    reader = open_parquet(path)
    names = reader.schema_arrow.names
    columns = [name for name in names if name in wanted] if wanted else names
    row = first_row
    batches = reader.iter_batches(
        batch_size=BLOCK_ROWS, row_groups=list(groups), columns=columns, use_threads=False
    )
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowInvalid, OSError, EOFError) as error:
            raise damaged(path, error) from None
        if batch is None:
            return
        rows = np.arange(row + 1, row + 1 + batch.num_rows, dtype=np.int64)
        yield RawBlock(
            batch, rows, file, _spell(batch, row), tuple(names), clock, batch.num_rows, typed=True
        )
        row += batch.num_rows


def _spell(batch: pa.RecordBatch, first_row: int) -> Callable[[NDArray[np.int64]], list[str]]:
    def raw(rows: NDArray[np.int64]) -> list[str]:
        picked = batch.take(pa.array(rows - first_row - 1))
        return [json.dumps(row, default=str) for row in picked.to_pylist()]

    return raw
