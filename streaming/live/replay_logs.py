"""Lets the lines of finished logs land in a folder as if they were written now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Where the simulator's logs hold the event time.
_TIME_COLUMN = "time_ms"


@dataclass
class _Log:
    stem: str
    head: bytes
    lines: Sequence[bytes]
    arrival_ms: NDArray[np.int64]
    done: int = 0


class LogReplay:
    """Plays logs in order of arrival, faster than they happened.

    A file gets its name by a rename when it is complete, as ``dir://`` wants it.

    Args:
        logs: Folder with CSV logs whose lines are in order of arrival, as the simulator writes.
        landing: Where files land.
        seconds: How long the longest of the logs takes; the few lines of others that arrived after
            its end, such as conversions, land with its last ones.
    """

    def __init__(self, logs: Path, landing: Path, seconds: float) -> None:
        landing.mkdir(parents=True)
        self._landing, self._seconds = landing, seconds
        self._logs = [_read(path) for path in sorted(logs.glob("*.csv"))]
        self._start_ms = min(int(log.arrival_ms[0]) for log in self._logs)
        self._end_ms = int(max(self._logs, key=lambda log: len(log.lines)).arrival_ms[-1])
        self.files = 0

    @property
    def speed(self) -> float:
        """Seconds of the log that pass in a second."""
        return (self._end_ms - self._start_ms) / 1000.0 / self._seconds

    @property
    def finished(self) -> bool:
        """True if every line has landed."""
        return all(log.done == len(log.lines) for log in self._logs)

    @property
    def lines(self) -> dict[str, int]:
        """Lines that have landed, by log."""
        return {log.stem: log.done for log in self._logs}

    def land(self, elapsed_s: float) -> None:
        """Lets land what has arrived ``elapsed_s`` after the start."""
        now_ms = self._start_ms + elapsed_s / self._seconds * (self._end_ms - self._start_ms)
        over = elapsed_s >= self._seconds
        for log in self._logs:
            due = int(np.searchsorted(log.arrival_ms, now_ms, "right"))
            after = len(log.lines) if over else due
            if after <= log.done:
                continue
            name = f"{log.stem}-{self.files:06d}.csv"
            hidden = self._landing / f".{name}"
            hidden.write_bytes(log.head + b"".join(log.lines[log.done : after]))
            hidden.rename(self._landing / name)
            log.done = after
            self.files += 1


def _read(path: Path) -> _Log:
    head, *lines = path.read_bytes().splitlines(keepends=True)
    column = head.decode().strip().split(",").index(_TIME_COLUMN)
    times = np.array([_time(line, column) for line in lines], np.int64)
    # Broken lines have no time of their own: they came with what was before them.
    return _Log(path.stem, head, lines, np.maximum.accumulate(times))


def _time(line: bytes, column: int) -> int:
    cells = line.split(b",", column + 1)
    return int(cells[column]) if len(cells) > column and cells[column].strip().isdigit() else 0
