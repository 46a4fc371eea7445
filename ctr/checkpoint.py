"""Atomic, verified checkpoints of a learner together with the place in its stream.

A checkpoint is a folder ``step-<examples>`` that appears by one rename after everything in it is
on disk. ``checkpoint.json`` holds the position, what it belongs to, and a checksum per file.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ctr.data.manifest import file_sha256, sync
from ctr.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

META = "checkpoint.json"
PREFIX = "step-"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read back.

    Attributes:
        path: Its folder.
        examples: Examples of the stream that it has learned from.
        arrays: Metric state.
        extra: Plain data stored beside it.
    """

    path: Path
    examples: int
    arrays: dict[str, np.ndarray]
    extra: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they live; created on the first save.
        keep: How many of the newest are kept, at least 1.

    Raises:
        ConfigError: ``keep`` is out of its range.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise ConfigError(f"at least 1 checkpoint must be kept, received {keep}.")
        self.folder = folder
        self.keep = keep

    def save(
        self,
        learner: tf.Module,
        examples: int,
        arrays: Mapping[str, np.ndarray],
        extra: Mapping[str, Any],
    ) -> Path:
        """Writes a checkpoint; a crash at any moment leaves the older ones as they were.

        Raises:
            CheckpointError: TensorFlow cannot write the variables.
            OSError: another file cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"{PREFIX}{examples:015d}"
        # A run has one writer. Only it may clean up: readers such as an export run beside it.
        for stale in self.folder.glob(".partial-*"):
            shutil.rmtree(stale, ignore_errors=True)
        partial = self.folder / f".partial-{os.getpid()}"
        partial.mkdir()
        try:
            _write(partial, learner, examples, arrays, extra)
        except tf.errors.OpError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"checkpoint {final} cannot be written: {str(error).splitlines()[0]}. Those "
                "before it are intact. Make room and run the same command again: it goes on "
                "from the newest."
            ) from None
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        sync(self.folder)
        # A run only goes forward, so a newer one was passed over as damaged; left in place it
        # would count as one of the newest.
        upto = [path for path in self.paths() if path <= final]
        beyond = [path for path in self.paths() if path > final]
        for path in [*upto[: -self.keep], *beyond]:
            shutil.rmtree(path)
        return final

    def paths(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted(self.folder.glob(f"{PREFIX}*")) if self.folder.is_dir() else []

    def latest(self) -> Saved | None:
        """Returns the newest undamaged checkpoint, or None where none was ever finished.

        Damaged ones are passed over with a warning.

        Raises:
            CheckpointError: there are checkpoints, all of them damaged.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return read(path)
            except CheckpointError as error:
                log.warning("%s Falling back to the checkpoint before it.", error)
        if paths:
            raise CheckpointError(
                f"{self.folder} has no undamaged checkpoint: all {len(paths)} are damaged. "
                "Restore one from a backup, or train into a new --run folder."
            )
        return None


def _write(
    folder: Path,
    learner: tf.Module,
    examples: int,
    arrays: Mapping[str, np.ndarray],
    extra: Mapping[str, Any],
) -> None:
    tf.train.Checkpoint(learner=learner).write(str(folder / "variables"))
    # Opened here, because NumPy would swallow what a full disk says when it closes the file.
    with (folder / "metrics.npz").open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    meta = {"examples": examples, "files": files, "extra": dict(extra)}
    (folder / META).write_text(json.dumps(meta, indent=1))
    for path in folder.iterdir():
        sync(path)


def read(path: Path) -> Saved:
    """Verifies a checkpoint and reads everything but the variables.

    Raises:
        CheckpointError: a file is missing or differs from what was written.
    """
    try:
        meta = json.loads((path / META).read_text())
        files, examples, extra = meta["files"], meta["examples"], meta["extra"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path}: {META} cannot be read ({error!r}).") from None
    for name, digest in files.items():
        if not (path / name).is_file() or file_sha256(path / name) != digest:
            raise CheckpointError(f"checkpoint {path}: {name} is missing or damaged.")
    with np.load(path / "metrics.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    return Saved(path, examples, arrays, extra)


def restore(learner: tf.Module, saved: Saved) -> None:
    """Puts a checkpoint's variables into a learner of the same recipe and schema.

    Raises:
        CheckpointError: the variables do not fit the learner.
    """
    try:
        status = tf.train.Checkpoint(learner=learner).read(str(saved.path / "variables"))
        status.assert_existing_objects_matched()
        status.assert_consumed()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {saved.path} does not fit this recipe and schema: {reason} Use the "
            "recipe and schema it was trained with, or a new --run folder."
        ) from None
