"""JSON lines: Arrow's parser where a block is uniform, else Python's, one line at a time."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json
from numpy.typing import NDArray

from streaming.formats.block import BadRow, RawBlock
from streaming.formats.text import line_starts, lines_at


def parse_jsonl(
    data: bytes, wanted: tuple[str, ...], file: str, first_row: int, clock: int
) -> RawBlock:
    """Parses whole lines, one JSON object each; keys outside ``wanted`` are dropped.

    Args:
        data: The lines.
        wanted: Keys to keep; empty keeps all.
        file: Name for messages.
        first_row: Physical rows before ``data``.
        clock: See :class:`RawBlock`.
    """
    starts = line_starts(data)
    lengths = np.diff(starts)
    numbers = np.arange(1, len(lengths) + 1, dtype=np.int64)[lengths > 2]
    bad: list[BadRow] = []
    table = _fast(data, wanted)
    if table is None or table.num_rows != len(numbers):
        table, numbers, bad = _slow(data, wanted, first_row)
    batches = table.combine_chunks().to_batches()
    batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

    def raw(rows: NDArray[np.int64]) -> list[str]:
        return lines_at(data, rows - first_row - 1)

    n_read = batch.num_rows + len(bad)
    return RawBlock(batch, numbers + first_row, file, raw, (), clock, n_read, tuple(bad))


def _fast(data: bytes, wanted: tuple[str, ...]) -> pa.Table | None:
    """Returns None where types are mixed, a line is broken, or strings were taken for times."""
    try:
        table = arrow_json.read_json(
            pa.BufferReader(data),
            arrow_json.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 64)),
        )
    except pa.ArrowInvalid:
        return None
    if wanted:
        table = table.select([name for name in table.schema.names if name in wanted])
    # The parser reads some strings as timestamps, depending on the block: no stable spelling.
    return None if any(pa.types.is_temporal(kind) for kind in table.schema.types) else table


def _slow(
    data: bytes, wanted: tuple[str, ...], first_row: int
) -> tuple[pa.Table, NDArray[np.int64], list[BadRow]]:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: list[BadRow] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            rows.append(value)
            numbers.append(number)
        else:
            text = line.decode("utf-8", "backslashreplace")
            bad.append(BadRow(first_row + number, "not a JSON object", text))
    names = list(wanted) or list(dict.fromkeys(key for row in rows for key in row))
    present = [name for name in names if any(name in row for row in rows)]
    columns = {name: _column([row.get(name) for row in rows]) for name in present}
    return pa.table(columns), np.array(numbers, np.int64), bad


def _column(values: list[Any]) -> pa.Array:
    """One type for all values: their own if they agree, else strings in JSON's spelling."""
    try:
        if not any(isinstance(v, float) for v in values) or not any(
            isinstance(v, int) for v in values
        ):
            return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    if any(isinstance(v, list) for v in values):
        lists = [v if isinstance(v, list) else None for v in values]
        return pa.array([v and [_spelled(i) for i in v] for v in lists], pa.list_(pa.string()))
    return pa.array([_spelled(v) for v in values], pa.string())


def _spelled(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
