"""Messages of a broker: JSON lines, or Arrow record batches as an IPC stream."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.errors import SchemaError
from streaming.adapter import reshape
from streaming.formats.block import RawBlock
from streaming.formats.jsonl import parse_jsonl
from streaming.inputs import IMPRESSIONS
from streaming.stage import Reading, with_absent
from streaming.validate import event_columns

#: What an Arrow IPC stream begins with.
_ARROW = b"\xff\xff\xff\xff"


def is_arrow(message: bytes) -> bool:
    """Tells Arrow batches from text."""
    return message[:4] == _ARROW


def parse_messages(messages: list[bytes], role: int, reading: Reading, name: str) -> list[RawBlock]:
    """Reads the rows of messages that are all text, or of one message of Arrow batches.

    Args:
        messages: JSON objects, one or several lines each; or one IPC stream.
        role: ``IMPRESSIONS`` or the index of the label's events.
        reading: How rows are read.
        name: For dead letters; ``row`` counts the lines from 1.

    Raises:
        SchemaError: an Arrow message is damaged.
    """
    source = reading.source
    wanted = (
        reading.wanted
        if role == IMPRESSIONS
        else event_columns(source.events[role], reading.schema, source)
    )
    if is_arrow(messages[0]):
        return [_shaped(block, role, reading, wanted) for block in _arrow(messages[0], name)]
    block = parse_jsonl(b"\n".join(m.strip() for m in messages) + b"\n", wanted, name, 0, 0)
    return [_shaped(block, role, reading, wanted)]


def _shaped(block: RawBlock, role: int, reading: Reading, wanted: tuple[str, ...]) -> RawBlock:
    block = with_absent(block, list(wanted))
    return reshape(block, reading.source.adapter) if role == IMPRESSIONS else block


def _arrow(message: bytes, name: str) -> list[RawBlock]:
    try:
        with pa.ipc.open_stream(pa.py_buffer(message)) as stream:
            batches = list(stream)
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{name}: damaged Arrow message ({error}).") from None
    blocks, row = [], 0
    for batch in batches:
        rows = np.arange(row + 1, row + batch.num_rows + 1, dtype=np.int64)
        blocks.append(_typed_block(batch, rows, name, row))
        row += batch.num_rows
    return blocks


def _typed_block(
    batch: pa.RecordBatch, rows: NDArray[np.int64], name: str, before: int
) -> RawBlock:
    def raw(numbers: NDArray[np.int64]) -> list[str]:
        return [repr(batch.slice(n - before - 1, 1).to_pylist()[0]) for n in numbers.tolist()]

    return RawBlock(batch, rows, name, raw, n_read=batch.num_rows, typed=True)
