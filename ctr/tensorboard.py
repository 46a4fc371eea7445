"""TensorBoard event files of a run, always consistent with the metric state.

Progressive and calibration points are a function of the metric state, one per closed window.
They are written again from that state whenever a run starts or resumes, and then extended, so a
resumed run shows every point once; rows that come late for a closed window move its points only
then. Training speed is not in that state: its points at or beyond the example count that a run
resumes from are dropped. A TensorBoard that is open while a run resumes keeps showing what it has
loaded until it is reloaded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ctr.metrics.progressive import ProgressiveMetrics

FOLDER = "tensorboard"
SPEED_EVERY_S = 5.0
_FILE = "events.out.tfevents.0000000000.octr"
_SPEED = "train/examples_per_second"
_TAGS = {
    "log_loss": "progressive/loss",
    "auc": "progressive/auc",
    "normalized_entropy": "progressive/normalized_entropy",
    "calibration": "progressive/calibration",
    "per_query_auc": "progressive/per_query_auc",
}


class _EventFile:
    """One event file, written from scratch."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._stream: BinaryIO = (folder / _FILE).open("wb")
        self._records = RecordWriter(self._stream)
        self._records.write(Event(file_version="brain.Event:2").SerializeToString())

    def add(self, step: int, wall_time: float, values: Iterable[tuple[str, float]]) -> None:
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values]
        if points:
            event = Event(step=step, wall_time=wall_time, summary=Summary(value=points))
            self._records.write(event.SerializeToString())

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class TensorBoardLog:
    """Writes ``RUN/tensorboard/{train,progressive,calibration/<feature>}``.

    Steps are examples with a known label up to the end of the window; the wall time of a
    progressive point is the *event* time at the window's end. Close it when done, best with
    ``contextlib.closing``.
    """

    def __init__(
        self,
        run_dir: str | Path,
        metrics: ProgressiveMetrics,
        examples: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Writes the points of all closed windows; keeps speed points below ``examples``.

        Args:
            run_dir: The run's folder.
            metrics: The metric state the run starts or resumes with.
            examples: Examples done before.
            clock: Source of epoch seconds.
        """
        folder = Path(run_dir) / FOLDER
        kept = [point for point in _speed_points(folder / "train") if point[0] < examples]
        self._train = _EventFile(folder / "train")
        for step, wall_time, value in kept:
            self._train.add(step, wall_time, [(_SPEED, value)])
        self._progressive = _EventFile(folder / "progressive")
        self._calibration = {
            name: _EventFile(folder / "calibration" / re.sub(r"[^\w.-]", "_", name))
            for name in metrics.features
        }
        self._clock = clock
        self._mark: tuple[float, int] | None = None
        self._written_us: int | None = None
        self._stand: tuple[int, int] | None = None
        self.update(metrics)

    def observe(self, examples: int, metrics: ProgressiveMetrics) -> None:
        """Adds what is new at ``examples`` done: windows, and speed every few seconds."""
        self.update(metrics)
        now = self._clock()
        if self._mark is None:
            self._mark = (now, examples)
        elif now - self._mark[0] >= SPEED_EVERY_S:
            rate = (examples - self._mark[1]) / (now - self._mark[0])
            self.speed(examples, now, rate)
            self._mark = (now, examples)

    def update(self, metrics: ProgressiveMetrics, last: bool = False) -> None:
        """Adds the windows that have closed since the last call.

        Args:
            metrics: The metric state.
            last: True at the end of the stream, where the open window counts as closed.
        """
        stand = (metrics.closed_windows, metrics.window_us)
        if stand == self._stand and not last:
            return
        self._stand = stand
        windows = metrics.windows(self._written_us)
        for window in windows if last else windows[:-1]:
            self._written_us = window["end_us"]
            step, when = window["examples_total"], window["end_us"] / 1e6
            points = [(tag, window[key]) for key, tag in _TAGS.items() if window[key] is not None]
            self._progressive.add(step, when, points)
            slices = metrics.between(window["start_us"], window["end_us"])["slices"]
            for feature, values in slices.items():
                found = [
                    (f"calibration/{feature}/{name}", value["calibration"])
                    for name, value in values.items()
                    if value["calibration"] is not None
                ]
                self._calibration[feature].add(step, when, found)
        for file in (self._progressive, *self._calibration.values()):
            file.flush()

    def speed(self, examples: int, wall_time: float, examples_per_second: float) -> None:
        """Adds a point of training speed at ``examples`` done, at ``wall_time`` epoch seconds."""
        self._train.add(examples, wall_time, [(_SPEED, examples_per_second)])
        self._train.flush()

    def close(self) -> None:
        """Closes the files; nothing can be added afterwards."""
        for file in (self._train, self._progressive, *self._calibration.values()):
            file.close()


def _speed_points(folder: Path) -> Iterator[tuple[int, float, float]]:
    """Yields (step, wall time, value) of what an earlier life of the run wrote."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(path)).Load():
            event: Any = Event.FromString(record)
            for value in event.summary.value:
                if value.tag == _SPEED:
                    yield event.step, event.wall_time, value.simple_value
