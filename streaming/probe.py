"""A look at the first rows of every file, so that a wrong schema shows before the long work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from ctr.errors import SchemaError
from streaming.formats.block import RawBlock
from streaming.formats.text import Span
from streaming.inputs import IMPRESSIONS, InputFile, Piece
from streaming.stage import Reading
from streaming.validate import validate_events, validate_impressions

_PROBE_BYTES = 1 << 16
#: JSON leaves out what is empty: a longer look, before a key counts as missing.
_PROBE_JSON_BYTES = 1 << 22


def probe(files: list[InputFile], reading: Reading) -> None:
    """Reads some rows of each file as the pipeline will.

    Raises:
        SchemaError: a column is missing or of an impossible type.
        StreamError: a file is damaged at its start.
    """
    seen: dict[str, tuple[pa.DataType, str]] = {}
    for file in files:
        for block in _first_block(file, reading):
            if file.role == IMPRESSIONS:
                valid = validate_impressions(block, reading.schema, reading.source)
                for name in reading.schema.side:
                    _check_type(name, valid.batch.column(name).type, file.name, seen)
            else:
                event = reading.source.events[file.role]
                validate_events(block, event, reading.schema, reading.source)


def _check_type(
    name: str, kind: pa.DataType, file: str, seen: dict[str, tuple[pa.DataType, str]]
) -> None:
    first, where = seen.setdefault(name, (kind, file))
    if kind != first:
        raise SchemaError(
            f"side column {name!r} is {first} in {where} but {kind} in {file}. Give it one type: "
            f'[source] types = {{ {name} = "float64" }}, or write the files alike.'
        )


def _first_block(file: InputFile, reading: Reading) -> Iterator[RawBlock]:
    span = None
    size = _PROBE_JSON_BYTES if file.format == "jsonl" else _PROBE_BYTES
    if file.format != "parquet" and not file.compression:
        with open(file.path, "rb") as stream:
            head = stream.read(size)
        stop = head.rfind(b"\n") + 1 or len(head)
        if not reading.source.newlines_in_values:
            span = Span(0, stop, 0)
    small = replace(reading, piece_bytes=size, strict=True)
    piece = Piece(0, file, span, (0, 1), 0, 0)
    try:
        for block in small.blocks(piece):
            yield block
            return
    except IndexError:
        raise SchemaError(f"{file.path} holds no row group. Leave it out of --input.") from None
