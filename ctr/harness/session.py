"""An experiment from its page to its report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.harness.arms import build_arm, check_arms, unit_identity
from ctr.harness.experiment import A_A, Arm, Experiment, parse
from ctr.harness.result import compare
from ctr.harness.runner import Failure, Unit, run_units
from ctr.harness.stream import Stream, open_stream
from ctr.report.content import json_ready
from ctr.training.run import versions

REPORT = "report.json"


@dataclass(frozen=True)
class Outcome:
    """A finished experiment.

    Attributes:
        report: Content of ``report.json``.
        failures: Units that failed; the report covers the others.
    """

    report: dict[str, Any]
    failures: list[Failure]


def run_experiment(
    table: Mapping[str, Any], output: Path, jobs: int, where: str = "experiment"
) -> Outcome:
    """Runs what is not there yet and writes ``report.json``.

    Args:
        table: The experiment's page.
        output: Folder of the report; units live in ``work`` below it.
        jobs: Processes at a time.
        where: Where the page comes from, for messages.

    Raises:
        CtrError: the page, the data or an arm cannot be used.
    """
    experiment = parse(table, where)
    stream = open_stream(experiment)
    check_arms(experiment, stream)
    work = output / "work"
    choices: dict[str, Any] = {}
    failures: list[Failure] = []
    units = {
        arm.name: [
            _unit(experiment, table, stream, arm, seed, choices.get(arm.name, {}))
            for seed in seeds(experiment, arm)
        ]
        for arm in experiment.all_arms
    }
    every = [unit for planned in _by_seed(units) for unit in planned]
    failures += run_units(every, work, jobs, stream.rows, "replay")
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "experiment": dict(table),
        "stream": {
            "data": str(stream.data_dir),
            "schema": stream.schema.name,
            "identity": stream.identity(),
            "examples": stream.rows,
            "burn_in": experiment.burn_in,
        },
        "versions": versions(),
        "tuned": choices,
        "failed": [
            {"arm": f.unit.arm, "seed": f.unit.seed, "reason": f.reason, "log": str(f.log)}
            for f in failures
        ],
    }
    report = json_ready(compare(experiment, units, work, facts))
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(output / REPORT, f"{text}\n".encode())
    return Outcome(report, failures)


def seeds(experiment: Experiment, arm: Arm) -> tuple[int, ...]:
    """Returns the seeds of an arm; the repetition of the base needs no more than one."""
    return experiment.seeds[:1] if arm.name == A_A else experiment.seeds


def _unit(
    experiment: Experiment,
    table: Mapping[str, Any],
    stream: Stream,
    arm: Arm,
    seed: int,
    choice: Mapping[str, Any],
) -> Unit:
    built = build_arm(experiment, arm, stream.schema, choice)
    identity = unit_identity(experiment, stream, built, seed, experiment.burn_in)
    return Unit(identity, arm.name, seed, table, 0, experiment.burn_in, choice)


def _by_seed(units: Mapping[str, list[Unit]]) -> list[list[Unit]]:
    """Returns the units of the first seed of every arm, then of the second, and so on."""
    most = max(len(planned) for planned in units.values())
    return [[p[n] for p in units.values() if n < len(p)] for n in range(most)]


def announce(experiment: Experiment, stream: Stream) -> None:
    """Says on stderr what is about to run."""
    print(
        f"{experiment.name}: {len(experiment.all_arms)} arms x {len(experiment.seeds)} seeds over "
        f"{stream.rows:,} examples of {stream.data_dir}",
        file=sys.stderr,
    )
