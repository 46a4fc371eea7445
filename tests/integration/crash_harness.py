"""Kills ``octr train`` at chosen moments, and compares what runs have left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

import ctr  # noqa: F401 (selects Keras 2 before TensorFlow is imported)
from ctr.checkpoint import CheckpointStore
from ctr.data import manifest
from ctr.data.manifest import Shard, file_sha256

#: Looking this often for the moment to kill.
_POLL_S = 0.001


@dataclass(frozen=True)
class Outcome:
    """What must not depend on interruptions.

    Attributes:
        variables: Every variable of the newest checkpoint, as bytes.
        state: The metric state beside it, as bytes.
        report: The parts of ``report.json`` that are no measurements of the machine.
        predictions: Columns of ``predictions.parquet``, or None.
        points: (event file, step, tag, value) of all progressive and calibration points.
    """

    variables: dict[str, bytes]
    state: dict[str, bytes]
    report: dict[str, object]
    predictions: dict[str, list[object]] | None
    points: list[tuple[str, int, str, float]]

    def differences(self, other: Outcome) -> list[str]:
        """Returns a line for each part that differs."""
        lines = []
        for part in ("variables", "state", "report"):
            ours, theirs = getattr(self, part), getattr(other, part)
            for key in sorted({*ours, *theirs}):
                if ours.get(key) != theirs.get(key):
                    lines.append(f"{part}: {key}")
        if self.predictions != other.predictions:
            lines.append("predictions.parquet")
        if self.points != other.points:
            lines.append("TensorBoard points")
        return lines


def outcome(run: Path) -> Outcome:
    """Reads a finished run."""
    saved = CheckpointStore(run / "checkpoints").latest()
    assert saved is not None
    report = json.loads((run / "report.json").read_text())
    kept = ("examples", "metrics", "calibration_buckets", "counts")
    file = run / "predictions.parquet"
    return Outcome(
        variables(saved.path),
        {name: array.tobytes() for name, array in saved.arrays.items()},
        {key: report[key] for key in kept},
        pq.read_table(file).to_pydict() if file.is_file() else None,
        points(run),
    )


def variables(checkpoint: Path) -> dict[str, bytes]:
    """Returns the bytes of every variable in a checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(checkpoint / "variables"))
    names = [n for n in reader.get_variable_to_shape_map() if not n.startswith("_CHECKPOINTABLE")]
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}


def points(run: Path) -> list[tuple[str, int, str, float]]:
    """Returns the TensorBoard points that are a function of the metric state."""
    folder = run / "tensorboard"
    found = []
    for path in sorted(folder.rglob("events.out.*")):
        where = str(path.parent.relative_to(folder))
        if where == "train":
            continue
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                found.append((where, event.step, value.tag, value.simple_value))
    return found


def replace_shards(
    data: Path, change: Callable[[int, Path], None] = lambda sequence, path: None
) -> None:
    """Lets ``change`` rewrite shard files, then commits them with fresh checksums and times."""
    schema, shards = manifest.load(data)
    renewed = []
    for shard in shards:
        path = data / shard.file
        change(shard.sequence, path)
        times = pq.read_table(path).column("event_time").cast(pa.timestamp("us", "UTC"))
        us = times.cast(pa.int64()).to_pylist() or [0]
        size, digest = path.stat().st_size, file_sha256(path)
        place = (shard.sequence, shard.file, len(times), size, digest)
        renewed.append(Shard(*place, min(us), max(us), max(us)))
    manifest.commit(data, schema, renewed)


def command(data: Path, run: Path, *options: str) -> list[str]:
    """Returns the command line of a training process."""
    octr = Path(sys.executable).with_name("octr")
    return [str(octr), "train", "--data", str(data), "--run", str(run), *options]


def train(data: Path, run: Path, *options: str) -> str:
    """Trains without interruption and returns what went to stderr."""
    done = subprocess.run(command(data, run, *options), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@dataclass(frozen=True)
class Kill:
    """A moment to kill at.

    Attributes:
        kind: ``start`` (from the first import to the first launch), ``learning`` (some time
            after a new checkpoint), ``saving`` (while a checkpoint is written) or ``final``
            (after the last one).
        delay_s: How long after that.
    """

    kind: str
    delay_s: float

    @staticmethod
    def random(kind: str, rng: random.Random) -> Kill:
        """Draws the delay."""
        longest = {"start": 8.0, "learning": 0.5, "saving": 0.03, "final": 0.8}[kind]
        return Kill(kind, rng.uniform(0.0, longest))

    def reached(self, run: Path, known: set[str], last: str) -> bool:
        """True once the moment has come, the delay apart.

        Args:
            run: The run folder.
            known: Names in the checkpoint folder when the process started.
            last: Name of the checkpoint at the end of the data.
        """
        folder = run / "checkpoints"
        names = set(os.listdir(folder)) if folder.is_dir() else set()
        if self.kind == "final":
            return last in names
        if self.kind == "learning":
            return any(name.startswith("step-") for name in names - known)
        return self.kind == "start" or any(n.startswith(".partial-") for n in names - known)


def train_and_kill(
    data: Path, run: Path, kill: Kill, n_rows: int, options: Sequence[str]
) -> tuple[bool, str]:
    """Starts a training process and kills it.

    Returns:
        Whether it was alive then, and the state of the run in words.
    """
    last = f"step-{n_rows:015d}"
    folder = run / "checkpoints"
    known = set(os.listdir(folder)) if folder.is_dir() else set()
    with subprocess.Popen(
        command(data, run, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not kill.reached(run, known, last):
            time.sleep(_POLL_S)
        time.sleep(kill.delay_s)
        process.send_signal(signal.SIGKILL)
        landed = process.wait() == -signal.SIGKILL
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    steps = [int(name.removeprefix("step-")) for name in names if name.startswith("step-")]
    torn = ", torn checkpoint" if any(name.startswith(".partial-") for name in names) else ""
    done = ", report written" if (run / "report.json").is_file() else ""
    return landed, f"newest checkpoint {max(steps, default=0):,}{torn}{done}"
