"""Files that land in a folder, as a source of events.

A file counts from the moment it has a name that the schema's patterns match, so writers give it
that name by a rename when it is complete. Files are read once, in natural order of their names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ctr.errors import ConfigError
from streaming.formats.block import RawBlock
from streaming.inputs import InputFile, Piece, cut_pieces, describe_file, natural_order
from streaming.live.source import Drained, Offsets, channel_name
from streaming.stage import Reading

#: Offset of a file that was read to its end.
DONE = -1
_POLL_S = 0.1


class DirSource:
    """Reads the files of a folder, each once.

    Args:
        folder: Where they land.
        reading: How they are read.

    Raises:
        ConfigError: there is no such folder.
    """

    def __init__(self, folder: Path, reading: Reading) -> None:
        if not folder.is_dir():
            raise ConfigError(f"--source dir://{folder}: there is no such folder.")
        self._folder = folder
        self._reading = reading
        self._known: dict[str, InputFile | None] = {}

    def channels(self) -> tuple[str, ...]:
        """One for the impressions and one for each kind of event."""
        source = self._reading.source
        return tuple(channel_name(role, source) for role in range(-1, len(source.events)))

    def drain(
        self, offsets: Offsets, clocks: Mapping[str, int], max_bytes: int, timeout_s: float
    ) -> tuple[list[Drained], Offsets]:
        """Reads pieces of the next files, those of the channel that is behind first."""
        deadline = time.monotonic() + timeout_s
        while True:
            waiting = self._waiting(offsets)
            if waiting or time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        source = self._reading.source
        waiting.sort(key=lambda f: (clocks.get(channel_name(f.role, source), -(1 << 62)), f.role,
                                    natural_order(f.name)))  # fmt: skip
        found: list[Drained] = []
        after = dict(offsets)
        left = max_bytes
        # Of one channel at a time: then the clocks tell again which one is behind.
        for file in [f for f in waiting if f.role == waiting[0].role]:
            pieces = cut_pieces([file], source, self._reading.piece_bytes)
            for piece in pieces[after.get(file.name, 0) :]:
                if left <= 0:
                    return found, after
                size = self._size(piece)
                found.append(self._drained(piece, size))
                left -= size
                after[file.name] = piece.index + 1
            after[file.name] = DONE
        return found, after

    def committed(self, offsets: Offsets) -> None:
        """Does nothing: files stay where they are."""

    def close(self) -> None:
        """Does nothing."""

    def _waiting(self, offsets: Offsets) -> list[InputFile]:
        files = []
        for path, name in self._listing():
            if offsets.get(name) == DONE:
                continue
            if name not in self._known:
                if path.stat().st_size == 0:
                    continue
                self._known[name] = describe_file(path, name, self._reading.source)
            file = self._known[name]
            if file is not None:
                files.append(file)
        return files

    def _listing(self) -> Iterator[tuple[Path, str]]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.is_file() and not entry.name.startswith((".", "_")):
                    yield Path(entry.path), entry.name

    def _size(self, piece: Piece) -> int:
        if piece.span is not None:
            return piece.span.stop - piece.span.start
        return Path(piece.file.path).stat().st_size

    def _drained(self, piece: Piece, size: int) -> Drained:
        def parse() -> list[RawBlock]:
            return list(self._reading.blocks(piece))

        role = piece.file.role
        channel = channel_name(role, self._reading.source)
        return Drained(channel, role, piece.file.name, size, parse)
