"""Exports beside training: one child process at a time, by the verb that does it.

What is exported is a copy of a checkpoint that the monitors of the stream have judged: an alarm
comes after the examples that caused it were learned, so the newest weights are never safe yet.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ctr.checkpoint import CheckpointStore
from ctr.data.manifest import SCHEMA
from ctr.errors import ConfigError
from ctr.training.run import CHECKPOINTS, RUN
from ctr.verbs import command_line, load_verbs

log = logging.getLogger(__name__)

#: Folder in the run with the state that is to be exported, a run folder itself.
CANDIDATE = "candidate"


class Publisher:
    """Exports a run every so many minutes of event time.

    Learning goes on meanwhile. An export that is due while another one runs is left out: the
    next one takes the then newest checkpoint.

    Args:
        run_dir: The run.
        models_dir: Folder of versions.
        every_minutes: Event time between exports.

    Raises:
        ConfigError: the interval is not above 0, or the verb ``export`` is not installed.
    """

    def __init__(self, run_dir: Path, models_dir: Path, every_minutes: float) -> None:
        if not every_minutes > 0.0:
            raise ConfigError(f"--export-minutes must be above 0, received {every_minutes}.")
        modules, unavailable = load_verbs()
        if "export" not in modules:
            reason = unavailable.get("export", "it is not installed")
            raise ConfigError(f"--export-to needs octr export, which is unavailable: {reason}.")
        self._run_dir, self._models_dir = run_dir, models_dir
        self._candidate = run_dir / CANDIDATE
        self._grid_us = round(every_minutes * 60e6)
        self._last: int | None = None
        self._waiting = False
        self._child: subprocess.Popen[bytes] | None = None
        self._time_us = 0
        self._newest: dict[str, Any] | None = None
        self._failure = ""
        self.exports = 0
        self.paused = 0

    def offer(self, time_us: int, healthy: bool) -> None:
        """Keeps the newest checkpoint for an export if one is due; call after a checkpoint."""
        self._collect(wait=False)
        slot = time_us // self._grid_us
        if self._child is not None or self._waiting or slot == self._last:
            return
        if not healthy:
            self.paused += 1
            return
        self._last, self._time_us, self._waiting = slot, time_us, True
        self._take()

    def judged(self, healthy: bool) -> None:
        """Exports or drops what was kept; call when all examples learned so far are judged."""
        if not self._waiting:
            return
        self._waiting = False
        if not healthy:
            self.paused += 1
            self._last = None
            return
        command = command_line(["export", str(self._candidate), "--to", str(self._models_dir)])
        self._child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )

    def finish(self) -> None:
        """Waits for an export that runs; what nobody has judged is not exported."""
        self._collect(wait=True)
        self._waiting = False
        shutil.rmtree(self._candidate, ignore_errors=True)

    def state(self) -> dict[str, Any]:
        """Returns what was published last, for the status."""
        self._collect(wait=False)
        return {
            "newest": self._newest,
            "running": self._child is not None,
            "exports": self.exports,
            "failure": self._failure,
            "paused": self.paused,
        }

    def _take(self) -> None:
        """Makes the newest checkpoint a run folder of its own, which costs no space."""
        shutil.rmtree(self._candidate, ignore_errors=True)
        newest = CheckpointStore(self._run_dir / CHECKPOINTS).paths()[-1]
        shutil.copytree(newest, self._candidate / CHECKPOINTS / newest.name, copy_function=_link)
        for name in (SCHEMA, RUN):
            shutil.copy(self._run_dir / name, self._candidate / name)

    def _collect(self, wait: bool) -> None:
        child = self._child
        if child is None or (not wait and child.poll() is None):
            return
        told = child.communicate()[1].decode(errors="replace").strip()
        self._child = None
        if child.returncode == 0:
            self._newest, self._failure = {"event_time_us": self._time_us}, ""
            self.exports += 1
        else:
            self._failure = told.splitlines()[-1] if told else f"exit {child.returncode}"
            log.warning("export failed: %s", self._failure)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy(source, target)
