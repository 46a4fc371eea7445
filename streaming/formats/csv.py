"""CSV and TSV: every column is read as strings; ragged lines and broken UTF-8 give up one row."""

from __future__ import annotations

import csv as python_csv
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from ctr.errors import SchemaError
from streaming.formats.block import BadRow, RawBlock
from streaming.formats.text import line_starts, lines_at


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        delimiter: Separator of fields.
        quote: Quote character, or "" for none.
        null_values: Strings read as null.
        newlines_in_values: True if quoted values hold line breaks.
    """

    delimiter: str
    quote: str
    null_values: tuple[str, ...]
    newlines_in_values: bool


def header_names(line: bytes, dialect: Dialect) -> tuple[str, ...]:
    """Splits a header line into column names."""
    text = line.decode("utf-8", "replace")
    if not dialect.quote:
        return tuple(text.split(dialect.delimiter))
    reader = python_csv.reader([text], delimiter=dialect.delimiter, quotechar=dialect.quote)
    return tuple(next(reader, ()))


def parse_csv(
    data: bytes,
    names: tuple[str, ...],
    wanted: tuple[str, ...],
    dialect: Dialect,
    file: str,
    first_row: int,
    clock: int,
    skip_lines: int,
) -> RawBlock:
    """Parses whole lines.

    Args:
        data: The lines.
        names: All column names of the file.
        wanted: Columns to keep.
        dialect: How the lines are written.
        file: Name for messages.
        first_row: Physical rows before ``data``.
        clock: See :class:`RawBlock`.
        skip_lines: Lines at the start of ``data`` to jump over (the header).

    Raises:
        SchemaError: a wanted column stands in the header twice.
    """
    invalid: list[tuple[int, str, str]] = []

    def on_invalid(row: arrow_csv.InvalidRow) -> str:
        reason = f"not the expected {row.expected_columns} fields"
        invalid.append((row.number, reason, row.text))
        return "skip"

    def parse(kind: pa.DataType) -> pa.Table:
        invalid.clear()
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(
                column_names=list(names),
                skip_rows=skip_lines,
                use_threads=False,
                # One block, as only blocks of one file position keep row numbers and buffers whole.
                block_size=max(len(data) + 1, 64),
            ),
            arrow_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                newlines_in_values=dialect.newlines_in_values,
                ignore_empty_lines=dialect.newlines_in_values,
                invalid_row_handler=on_invalid,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, kind),
                include_columns=list(wanted),
                null_values=list(dialect.null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )

    duplicate = {name for name in wanted if names.count(name) > 1}
    if duplicate:
        raise SchemaError(f"{file}: the header names {sorted(duplicate)} twice. Fix the header.")
    if not data.strip(b"\r\n") or data.count(b"\n") + (not data.endswith(b"\n")) <= skip_lines:
        table = pa.table({name: pa.array([], pa.string()) for name in wanted})
    else:
        try:
            table = parse(pa.string())
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise
            table = parse(pa.binary())
    batch = _one_batch(table)
    numbers = _numbers(batch.num_rows, [number for number, _, _ in invalid], skip_lines)
    n_read = batch.num_rows + len(invalid)
    if not dialect.newlines_in_values:
        batch, numbers, n_blank = _drop_blank(batch, numbers, data)
        n_read -= n_blank
    bad = [BadRow(first_row + n, why, text) for n, why, text in invalid]
    batch, numbers, broken = _decode(batch, numbers)
    bad += [
        BadRow(first_row + int(n), "not valid UTF-8", text)
        for n, text in zip(broken, lines_at(data, broken - 1), strict=True)
    ]

    def raw(rows: NDArray[np.int64]) -> list[str]:
        if not dialect.newlines_in_values:
            return lines_at(data, rows - first_row - 1)
        where = np.searchsorted(numbers, rows - first_row)
        parts = [batch.column(i).take(pa.array(where)).to_pylist() for i in range(len(wanted))]
        return [dialect.delimiter.join(v or "" for v in row) for row in zip(*parts, strict=True)]

    return RawBlock(batch, numbers + first_row, file, raw, names, clock, n_read, tuple(bad))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _numbers(n_good: int, invalid: list[int], skipped: int) -> NDArray[np.int64]:
    """Physical rows (from 1) of the parsed rows: all numbers but those of the rows given up."""
    everything = np.arange(skipped + 1, skipped + 1 + n_good + len(invalid), dtype=np.int64)
    if not invalid:
        return everything
    return np.setdiff1d(everything, np.array(invalid, np.int64), assume_unique=True)


def _drop_blank(
    batch: pa.RecordBatch, numbers: NDArray[np.int64], data: bytes
) -> tuple[pa.RecordBatch, NDArray[np.int64], int]:
    """Removes the rows Arrow makes of blank lines."""
    if b"\n\n" not in data and b"\n\r\n" not in data and data[:1] not in (b"\n", b"\r"):
        return batch, numbers, 0
    starts = line_starts(data)
    lengths = np.diff(starts)
    blank = (lengths == 1) | ((lengths == 2) & (np.frombuffer(data, np.uint8)[starts[:-1]] == 13))
    keep = ~blank[np.minimum(numbers - 1, len(blank) - 1)]
    return batch.filter(pa.array(keep)), numbers[keep], int((~keep).sum())


def _decode(
    batch: pa.RecordBatch, numbers: NDArray[np.int64]
) -> tuple[pa.RecordBatch, NDArray[np.int64], NDArray[np.int64]]:
    """Turns binary columns into strings; rows with broken UTF-8 are taken out."""
    if not any(pa.types.is_binary(kind) for kind in batch.schema.types):
        return batch, numbers, np.empty(0, np.int64)
    good = np.ones(batch.num_rows, np.bool_)
    for column in batch.columns:
        for i, value in enumerate(column.to_pylist()):
            if value is not None and not _is_utf8(value):
                good[i] = False
    kept = batch.filter(pa.array(good))
    strings = pa.RecordBatch.from_arrays(
        [column.cast(pa.string()) for column in kept.columns], names=kept.schema.names
    )
    return strings, numbers[good], numbers[~good]


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
