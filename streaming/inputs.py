"""From ``--input`` to the files of the log and to pieces of them that workers can read alone."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ctr.errors import SchemaError, StreamError
from streaming.formats.block import RawBlock
from streaming.formats.csv import Dialect, header_names, parse_csv
from streaming.formats.jsonl import parse_jsonl
from streaming.formats.parquet import BLOCK_ROWS, open_parquet, read_row_groups
from streaming.formats.text import Span, count_rows, cut, first_line, read_pieces
from streaming.source import Lookup, Source

IMPRESSIONS = -1
PIECE_BYTES = 1 << 25
_FORMAT_OF = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_COMPRESSION_OF = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


@dataclass(frozen=True)
class InputFile:
    """One raw file.

    Attributes:
        path: Where it is.
        name: Path relative to the input folder: shown to users, part of made-up example ids.
        role: ``IMPRESSIONS`` or the index of the ``[[source.events]]`` entry it belongs to.
        format: One of ``streaming.source.FORMATS``.
        compression: Arrow's name, or "".
        names: Column names of a text file.
        has_header: True if the first line names the columns.
    """

    path: str
    name: str
    role: int
    format: str
    compression: str
    names: tuple[str, ...] = ()
    has_header: bool = False


@dataclass(frozen=True)
class Piece:
    """A part of a file that one worker reads.

    Attributes:
        index: Place among all pieces; pieces of a file ascend in its order.
        file: The file.
        span: Lines of an uncompressed text file; None reads it all.
        groups: Row groups of a Parquet file.
        first_row: Physical rows of the file before this piece.
        clock: Rows of earlier files, for ``event_time = "row"``.
    """

    index: int
    file: InputFile
    span: Span | None
    groups: tuple[int, int]
    first_row: int
    clock: int


def find_files(inputs: list[str], source: Source) -> tuple[list[InputFile], int]:
    """Lists the files of the log and tells impressions from events.

    Returns:
        The files that hold something, impressions first, each group in natural order of names
        (``day_2`` before ``day_10``), and the number of empty files left out.

    Raises:
        StreamError: a path does not exist, or nothing was found.
        SchemaError: a file's format is unknown.
    """
    patterns = source.impressions.input or source.input
    roles = [(IMPRESSIONS, patterns), *((i, e.input) for i, e in enumerate(source.events))]
    files: dict[str, InputFile] = {}
    n_empty = 0
    for given in inputs:
        for path, name, chosen in _expand(given):
            role = _role_of(name, roles, chosen and not source.events, source)
            if role is None or str(path) in files:
                continue
            if path.stat().st_size == 0:
                n_empty += 1
                continue
            files[str(path)] = _describe(path, name, role, source)
    found = sorted(files.values(), key=lambda f: (f.role, _natural(f.name)))
    if not any(f.role == IMPRESSIONS for f in found):
        wanted = ", ".join(patterns) or "*" + ", *".join(_FORMAT_OF)
        what = f"only {n_empty} empty file(s)" if n_empty else "no file"
        raise StreamError(
            f"--input {' '.join(inputs)}: {what} of impressions to read (looked for {wanted}). "
            "Check the path, or set [source] input to your file names."
        )
    return found, n_empty


def describe_file(path: Path, name: str, source: Source) -> InputFile | None:
    """Returns what a file of a watched folder holds, None if the source does not want it.

    Raises:
        SchemaError: its format is unknown or its header does not fit.
    """
    patterns = source.impressions.input or source.input
    roles = [(IMPRESSIONS, patterns), *((i, e.input) for i, e in enumerate(source.events))]
    role = _role_of(name, roles, False, source)
    return None if role is None else _describe(path, name, role, source)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which ``day_2`` comes before ``day_10``."""
    return _natural(name)


def _expand(given: str) -> Iterator[tuple[Path, str, bool]]:
    """Yields path, name inside the input folder, and whether the user chose the file himself."""
    path = Path(given)
    if path.is_dir():
        for child in sorted(path.rglob("*")):
            name = child.relative_to(path)
            if child.is_file() and not any(part.startswith((".", "_")) for part in name.parts):
                yield child, name.as_posix(), False
    elif path.is_file():
        yield path, path.name, True
    else:
        matches = sorted(Path(p) for p in glob.glob(given, recursive=True))
        if not matches:
            raise StreamError(f"--input {given}: there is no such file, folder or match.")
        for match in matches:
            if match.is_file():
                yield match, match.name, True


def _role_of(
    name: str, roles: list[tuple[int, tuple[str, ...]]], chosen: bool, source: Source
) -> int | None:
    if any(_matches(name, lookup.input) for lookup in source.lookups):
        return None
    if chosen:
        return IMPRESSIONS
    for role, patterns in roles:
        if _matches(name, patterns) or (not patterns and _format_of(name)[0]):
            return role
    return None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    base = name.rpartition("/")[2]
    stem = base
    for ending in _COMPRESSION_OF:
        stem = stem.removesuffix(ending)
    return any(fnmatch.fnmatchcase(n, p) for n in (name, base, stem) for p in patterns)


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def _format_of(name: str) -> tuple[str, str]:
    suffixes = Path(name).suffixes
    compression = _COMPRESSION_OF.get(suffixes[-1], "") if suffixes else ""
    rest = suffixes[:-1] if compression else suffixes
    return _FORMAT_OF.get(rest[-1], "") if rest else "", compression


def _describe(path: Path, name: str, role: int, source: Source) -> InputFile:
    guessed, compression = _format_of(name)
    kind = "parquet" if guessed == "parquet" else source.format or guessed
    if not kind:
        raise SchemaError(
            f"{path}: its ending does not tell the format. Set [source] format to csv, tsv, "
            "jsonl or parquet."
        )
    event = source.events[role] if role >= 0 else None
    names = (event.column_names if event else ()) or source.column_names
    header = source.header and not (event and event.column_names)
    return _with_columns(InputFile(str(path), name, role, kind, compression, names, header), source)


def _with_columns(file: InputFile, source: Source) -> InputFile:
    """Reads the header, or checks that a file without one is as wide as was declared."""
    if file.format not in ("csv", "tsv"):
        return replace(file, has_header=False)
    found = header_names(first_line(file.path, file.compression), dialect_of(file, source))
    if file.has_header:
        return replace(file, names=found)
    if len(found) != len(file.names):
        raise SchemaError(
            f"{file.path}: the first line has {len(found)} fields, column_names lists "
            f"{len(file.names)}. Fix column_names, the delimiter or the file."
        )
    return file


def dialect_of(file: InputFile, source: Source) -> Dialect:
    """Returns how a text file is written."""
    delimiter = source.delimiter or ("\t" if file.format == "tsv" else ",")
    return Dialect(delimiter, source.quote, source.null_values, source.newlines_in_values)


def cut_pieces(
    files: list[InputFile], source: Source, piece_bytes: int = PIECE_BYTES
) -> list[Piece]:
    """Cuts files into pieces of about ``piece_bytes``."""
    pieces: list[Piece] = []
    clock = 0
    for file in files:
        counts_rows = source.event_time == "row" and file is not files[-1]
        if file.format == "parquet":
            metadata = open_parquet(file.path).metadata
            row = first = begin = 0
            for group in range(metadata.num_row_groups):
                row += metadata.row_group(group).num_rows
                if row - first >= BLOCK_ROWS or group + 1 == metadata.num_row_groups:
                    pieces.append(Piece(len(pieces), file, None, (begin, group + 1), first, clock))
                    begin, first = group + 1, row
            clock += row
            continue
        spans: list[Span | None] = [None]
        if not file.compression and not source.newlines_in_values:
            spans = [*cut(file.path, Path(file.path).stat().st_size, piece_bytes)]
        for span in spans:
            first = span.first_row if span else 0
            pieces.append(Piece(len(pieces), file, span, (0, 0), first, clock))
        if counts_rows:
            clock += count_rows(file.path, file.compression)
    return pieces


def read_blocks(
    piece: Piece, source: Source, wanted: tuple[str, ...], piece_bytes: int = PIECE_BYTES
) -> Iterator[RawBlock]:
    """Yields the raw rows of a piece.

    Args:
        piece: What to read.
        source: How to read it.
        wanted: Columns to keep; empty keeps all.
        piece_bytes: Aimed size of the blocks of a compressed file.
    """
    file = piece.file
    if file.format == "parquet":
        groups = range(*piece.groups)
        yield from read_row_groups(
            file.path, groups, wanted, file.name, piece.first_row, piece.clock
        )
        return
    whole = source.newlines_in_values
    for data, row in read_pieces(file.path, file.compression, piece.span, piece_bytes, whole):
        if file.format == "jsonl":
            yield parse_jsonl(data, wanted, file.name, row, piece.clock)
            continue
        kept = tuple(n for n in file.names if n in wanted) if wanted else file.names
        dialect, skip = dialect_of(file, source), int(file.has_header and row == 0)
        yield parse_csv(data, file.names, kept, dialect, file.name, row, piece.clock, skip)


def find_lookup(lookup: Lookup, inputs: list[str], source: Source) -> list[InputFile]:
    """Lists the files of a side table: they lie in the input folders or beside the input files."""
    found: dict[str, InputFile] = {}
    for given in inputs:
        path = Path(given)
        folder = path if path.is_dir() else path.parent
        for child in sorted(folder.rglob("*") if path.is_dir() else folder.glob("*")):
            if child.is_file() and _matches(child.name, lookup.input):
                own = replace(
                    source,
                    column_names=lookup.column_names or source.column_names,
                    header=source.header and not lookup.column_names,
                )
                found[str(child)] = _describe(child, child.name, IMPRESSIONS, own)
    return list(found.values())
