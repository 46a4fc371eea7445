"""Text files cut at line ends into pieces that know the number of their first row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.errors import StreamError

_SCAN_BYTES = 1 << 23
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Span:
    """A range of whole lines in an uncompressed file.

    Attributes:
        start: Offset of the first byte.
        stop: Offset behind the last byte.
        first_row: Physical rows before ``start``.
    """

    start: int
    stop: int
    first_row: int


def first_line(path: str, compression: str) -> bytes:
    """Returns the first line without its line end and without a byte-order mark."""
    with _open(path, compression) as stream:
        head = b""
        while b"\n" not in head and (more := stream.read(1 << 16)):
            head += more
    return head.removeprefix(_BOM).partition(b"\n")[0].removesuffix(b"\r")


def cut(path: str, size: int, piece_bytes: int) -> list[Span]:
    """Cuts a file into spans of about ``piece_bytes``, each ending at a line end."""
    if size <= piece_bytes:
        return [Span(0, size, 0)]
    spans: list[Span] = []
    with open(path, "rb") as stream:
        start = row = 0
        while start < size:
            n_rows, stop = _advance(stream, start, piece_bytes)
            spans.append(Span(start, stop, row))
            start, row = stop, row + n_rows
    return spans


def _advance(stream: BinaryIO, start: int, piece_bytes: int) -> tuple[int, int]:
    """Counts line ends from ``start`` until the first one past ``piece_bytes``."""
    stream.seek(start)
    n_rows, at = 0, start
    while data := stream.read(_SCAN_BYTES):
        due = start + piece_bytes - at
        if due < len(data) and (end := data.find(b"\n", max(due - 1, 0))) >= 0:
            return n_rows + data.count(b"\n", 0, end + 1), at + end + 1
        n_rows += data.count(b"\n")
        at += len(data)
    return n_rows, at


def count_rows(path: str, compression: str) -> int:
    """Returns the number of physical rows of a text file."""
    n_rows, last = 0, b"\n"
    with _open(path, compression) as stream:
        while data := stream.read(_SCAN_BYTES):
            n_rows += data.count(b"\n")
            last = data[-1:]
    return n_rows + (last != b"\n")


def read_pieces(
    path: str, compression: str, span: Span | None, piece_bytes: int, whole: bool
) -> Iterator[tuple[bytes, int]]:
    """Yields ``(bytes, rows before them)``.

    Args:
        path: The file.
        compression: Arrow's name of the compression, or "".
        span: The part to read; None reads the file to its end.
        piece_bytes: Aimed size of a piece of a file without spans.
        whole: True never cuts (quoted values may hold line breaks).
    """
    if span is not None and not compression:
        with open(path, "rb") as stream:
            stream.seek(span.start)
            data = stream.read(span.stop - span.start)
        yield data.removeprefix(_BOM) if span.start == 0 else data, span.first_row
        return
    row = 0
    rest = b""
    with _open(path, compression) as stream:
        while True:
            try:
                data = stream.read(-1 if whole else piece_bytes)
            except OSError as error:
                raise StreamError(
                    f"{path}: the {compression} data are damaged or cut off ({error}). "
                    "Fetch the file again."
                ) from None
            if row == 0 and not rest:
                data = data.removeprefix(_BOM)
            if not data:
                break
            end = len(data) if whole else data.rfind(b"\n") + 1
            piece, rest = rest + data[:end], (rest if end == 0 else b"") + data[end:]
            if end == 0:
                continue
            yield piece, row
            row += piece.count(b"\n")
    if rest:
        yield rest, row


def line_starts(data: bytes) -> NDArray[np.int64]:
    """Returns the offset of each line's first byte, and behind them the end of the data."""
    breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1
    ends = breaks if data.endswith(b"\n") else np.append(breaks, len(data))
    return np.concatenate([[0], ends]).astype(np.int64)


def lines_at(data: bytes, indices: NDArray[np.int64]) -> list[str]:
    """Returns the lines with the given indices as text."""
    starts = line_starts(data)
    return [
        data[starts[i] : starts[i + 1]].rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        if i + 1 < len(starts)
        else ""
        for i in indices
    ]


def _open(path: str, compression: str) -> BinaryIO:
    if compression:
        return pa.input_stream(path, compression=compression)
    return open(path, "rb")
