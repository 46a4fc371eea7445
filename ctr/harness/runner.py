"""Runs the units of an experiment side by side, and only those that are not there yet."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.harness.worker import DONE, ERROR, RESULT, UNIT
from ctr.progress import Progress

LOG = "log.txt"


@dataclass(frozen=True)
class Unit:
    """One arm with one seed.

    Attributes:
        id: Content hash of everything that decides its numbers.
        arm: Name of the arm.
        seed: Its seed.
        experiment: The experiment's table.
        rows: Bound on the examples used; 0 for none.
        burn_in: Examples that are not scored.
        choice: Tuned values by path.
        label: What the folder is called after besides the arm and the seed.
        task: ``replay``, or ``costs`` to time the arm against the base.
        threads: Threads inside one operation.
        base_choice: Tuned values of the base, which costs are compared to.
    """

    id: str
    arm: str
    seed: int
    experiment: Mapping[str, Any] = field(repr=False)
    rows: int = 0
    burn_in: int = 0
    choice: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    task: str = "replay"
    threads: int = 1
    base_choice: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, work: Path) -> Path:
        """Returns where the unit's results are."""
        name = re.sub("[^A-Za-z0-9_.]+", "_", f"{self.arm}{self.label}").strip("_")
        return work / f"{name}-{self.seed}-{self.id[:8]}"

    def result(self, work: Path) -> dict[str, Any] | None:
        """Returns the finished result, or None."""
        path = self.folder(work) / RESULT
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found if found["unit"] == self.id else None


@dataclass(frozen=True)
class Failure:
    """A unit that ended without a result.

    Attributes:
        unit: The unit.
        reason: One line.
        log: Its log.
    """

    unit: Unit
    reason: str
    log: Path


def run_units(
    units: Sequence[Unit], work: Path, jobs: int, rows: int, title: str = ""
) -> list[Failure]:
    """Runs the units that have no result yet; a failed one does not stop the others.

    Args:
        units: What to run.
        work: Folder of the units' folders.
        jobs: Processes at a time.
        rows: Examples of a unit, for the progress line.
        title: What the units are for.

    Returns:
        The units that failed.
    """
    waiting = [unit for unit in units if unit.result(work) is None]
    there = len(units) - len(waiting)
    if there:
        print(f"{title}: {there} of {len(units)} units were there already", file=sys.stderr)
    running: dict[subprocess.Popen[bytes], Unit] = {}
    failures: list[Failure] = []
    ended = 0
    total = rows * len(waiting)
    todo = list(waiting)
    with Progress(total) as progress:
        try:
            while todo or running:
                while todo and len(running) < jobs:
                    unit = todo.pop(0)
                    running[_start(unit, work)] = unit
                time.sleep(0.1)
                for process in [p for p in running if p.poll() is not None]:
                    unit = running.pop(process)
                    ended += 1
                    if unit.result(work) is None:
                        failures.append(_failure(unit, work, process.returncode))
                        print(_line(failures[-1]), file=sys.stderr)
                done = rows * ended + sum(_done(unit, work) for unit in running.values())
                progress.update(min(done, total))
        except BaseException:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
            raise
    return failures


def _start(unit: Unit, work: Path) -> subprocess.Popen[bytes]:
    folder = unit.folder(work)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plain = {
        "id": unit.id,
        "arm": unit.arm,
        "seed": unit.seed,
        "experiment": unit.experiment,
        "rows": unit.rows,
        "burn_in": unit.burn_in,
        "choice": unit.choice,
        "task": unit.task,
        "threads": unit.threads,
        "base_choice": unit.base_choice,
        "working_directory": os.getcwd(),
    }
    write_atomically(folder / UNIT, json.dumps(plain, indent=1).encode())
    with (folder / LOG).open("wb") as log:
        command = [sys.executable, "-P", "-m", "ctr.harness.worker", str(folder.resolve())]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _done(unit: Unit, work: Path) -> int:
    try:
        return int((unit.folder(work) / DONE).read_text())
    except (OSError, ValueError):
        return 0


def _failure(unit: Unit, work: Path, code: int) -> Failure:
    folder = unit.folder(work)
    if (folder / ERROR).is_file():
        reason = (folder / ERROR).read_text().strip()
    else:
        lines = (folder / LOG).read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"the process ended with code {code}"
        if code < 0:
            reason = f"the process was ended by signal {-code}; is memory short?"
    return Failure(unit, reason, folder / LOG)


def _line(failure: Failure) -> str:
    unit = failure.unit
    return f"failed: {unit.arm}, seed {unit.seed}: {failure.reason} (log: {failure.log})"
