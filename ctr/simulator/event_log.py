"""A raw log as a busy collector writes it: in order of arrival, with repeats and broken lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

#: Lines after which a log goes on in its next file.
FILE_LINES = 250_000
_GOOD, _CUT, _TIME, _SURPLUS = range(4)
_NEWLINE = 10


@dataclass
class LogCounts:
    """What a log holds.

    Attributes:
        unique: Events, each counted once.
        duplicates: Second deliveries.
        malformed: Failed deliveries that left a broken line; the event was then sent again.
        out_of_order: Good lines whose event is older than one on an earlier line.
        files: Files written.
    """

    unique: int = 0
    duplicates: int = 0
    malformed: int = 0
    out_of_order: int = 0
    files: int = 0


class EventLog:
    """Writes ``<stem>-00000.csv`` and further files; memory holds only what has not arrived.

    Call :meth:`finish` after the last event, and :meth:`close` however it ends.

    Args:
        folder: Where the files go.
        stem: Start of their names.
        header: Column names.
        render: Makes a table with those columns out of the numbers that :meth:`add` was given.
        time_column: Name of the event time column, the one a garbled line garbles.
        faults: ``(duplicate_rate, malformed_rate, jitter_s)``.
        rng: Source of randomness of the deliveries.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        header: Sequence[str],
        render: Callable[[Mapping[str, np.ndarray]], pa.Table],
        time_column: str,
        faults: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> None:
        self.counts = LogCounts()
        self._folder, self._stem, self._header = folder, stem, list(header)
        self._render = render
        self._time_field = self._header.index(time_column)
        self._duplicate_rate, self._malformed_rate, jitter_s = faults
        self._jitter_ms = int(jitter_s * 1000.0)
        self._rng = rng
        self._pending: dict[str, np.ndarray] = {}
        self._stream: BinaryIO | None = None
        self._lines = 0
        self._newest_ms = np.iinfo(np.int64).min

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Sends events; ``columns["time_ms"]`` is when they happened."""
        n = len(columns["time_ms"])
        again = np.flatnonzero(self._rng.random(n) < self._duplicate_rate)
        broken = np.flatnonzero(self._rng.random(n) < self._malformed_rate)
        arrival = columns["time_ms"] + self._jitter(n)
        index = np.concatenate([broken, np.arange(n), again])
        fault = np.zeros(len(index), np.int8)
        fault[: len(broken)] = self._rng.integers(_CUT, _SURPLUS + 1, len(broken))
        late = arrival[again] + self._jitter(len(again))
        sent = {name: values[index] for name, values in columns.items()}
        sent["_arrival"] = np.concatenate([arrival[broken], arrival, late])
        sent["_fault"] = fault
        self.counts.unique += n
        self.counts.duplicates += len(again)
        self.counts.malformed += len(broken)
        if self._pending:
            sent = {k: np.concatenate([self._pending[k], v]) for k, v in sent.items()}
        self._pending = sent

    def flush(self, watermark_ms: int) -> None:
        """Writes what has arrived by ``watermark_ms``; nothing older may be added afterwards."""
        if not self._pending:
            return
        arrival = self._pending["_arrival"]
        due = np.flatnonzero(arrival <= watermark_ms)
        if len(due):
            # Stable: a failed delivery was put before the good one of equal arrival.
            due = due[np.argsort(arrival[due], kind="stable")]
            self._write({name: values[due] for name, values in self._pending.items()})
            later = arrival > watermark_ms
            self._pending = {name: values[later] for name, values in self._pending.items()}

    def finish(self) -> None:
        """Writes what is still on its way; a log without events is a file with a header."""
        self.flush(np.iinfo(np.int64).max)
        if not self.counts.files:
            self._open()

    def close(self) -> None:
        """Closes the last file; what has not arrived is lost."""
        if self._stream is not None:
            self._stream.close()

    def _jitter(self, n: int) -> np.ndarray:
        """Most deliveries are quick, none takes longer than the configured bound."""
        return (self._jitter_ms * self._rng.random(n) ** 4).astype(np.int64)

    def _write(self, rows: dict[str, np.ndarray]) -> None:
        good = rows["time_ms"][rows["_fault"] == _GOOD]
        newest = np.maximum.accumulate(np.append(self._newest_ms, good))
        self.counts.out_of_order += int((good < newest[:-1]).sum())
        self._newest_ms = int(newest[-1])

        stream = self._stream
        if stream is None or self._lines >= FILE_LINES:
            stream = self._open()
        sink = pa.BufferOutputStream()
        options = csv.WriteOptions(include_header=False, quoting_style="none")
        csv.write_csv(self._render(rows), sink, options)
        self._garble(memoryview(sink.getvalue()), rows["_fault"], stream)
        self._lines += len(rows["_fault"])

    def _open(self) -> BinaryIO:
        self.close()
        path = self._folder / f"{self._stem}-{self.counts.files:05d}.csv"
        self._stream = path.open("wb")
        self._stream.write(",".join(self._header).encode() + b"\n")
        self.counts.files += 1
        self._lines = 0
        return self._stream

    def _garble(self, text: memoryview, fault: np.ndarray, stream: BinaryIO) -> None:
        """Writes ``text`` with the faulty lines replaced; the others are not touched."""
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE)
        done = 0
        for row in np.flatnonzero(fault).tolist():
            start = int(ends[row - 1]) + 1 if row else 0
            end = int(ends[row])
            stream.write(text[done:start])
            stream.write(self._broken(bytes(text[start:end]), int(fault[row])))
            done = end
        stream.write(text[done:])

    def _broken(self, line: bytes, fault: int) -> bytes:
        if fault == _CUT:
            # Before the last separator, so that a field is missing; never an empty line.
            return line[: int(self._rng.integers(1, line.rindex(b",") + 1))]
        if fault == _TIME:
            fields = line.split(b",")
            time = fields[self._time_field]
            fields[self._time_field] = time[: len(time) // 2] + b"?" + time[len(time) // 2 + 1 :]
            return b",".join(fields)
        return line + b",?"
