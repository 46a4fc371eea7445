"""An experiment from its page to its report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.harness.arms import build_arm, check_arms, cost_identity, unit_identity
from ctr.harness.experiment import A_A, BASE, PRIMARY, Arm, Experiment, parse
from ctr.harness.replicas import replica
from ctr.harness.result import REPORT, compare
from ctr.harness.runner import Failure, Unit, run_units
from ctr.harness.stream import Stream, open_stream
from ctr.harness.tuning import search
from ctr.report.content import json_ready
from ctr.training.run import versions


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
    left_out = check_arms(experiment, stream)
    arms = [arm for arm in experiment.all_arms if arm.name not in left_out]
    work = output / "work"
    failures: list[Failure] = []
    tuned = _tune(experiment, table, arms, work, jobs, failures) if experiment.tune else {}
    announce(experiment, stream, len(arms), left_out)
    units = {
        arm.name: [
            _unit(experiment, table, stream, arm, seed, choice) for seed in seeds(experiment, arm)
        ]
        for arm in arms
        # An arm of which every trial failed has been reported; there is nothing to compare.
        if (choice := tuned[_tuned_as(arm)]["choice"] if tuned else {}) is not None
    }
    every = [unit for planned in _by_seed(units) for unit in planned] if units else []
    failures += run_units(every, work, jobs, stream.rows, "replay")
    costs = _costs(experiment, table, stream, units) if experiment.cost_rounds else {}
    # One at a time: side by side they would measure each other.
    failures += run_units(list(costs.values()), work, 1, stream.rows, "costs")
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
        "tuned": tuned,
        "left_out": left_out,
        "failed": [
            {"arm": f.unit.arm, "seed": f.unit.seed, "reason": f.reason, "log": str(f.log)}
            for f in failures
        ],
    }
    report = json_ready(compare(experiment, units, costs, work, facts))
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(output / REPORT, f"{text}\n".encode())
    return Outcome(report, failures)


def seeds(experiment: Experiment, arm: Arm) -> tuple[int, ...]:
    """Returns the seeds of an arm; the repetition of the base needs no more than one."""
    return experiment.seeds[:1] if arm.name == A_A else experiment.seeds


def _tuned_as(arm: Arm) -> str:
    """Returns the arm whose tuned values an arm uses: the repetition of the base is the base."""
    return BASE if arm.name == A_A else arm.name


def _tune(
    experiment: Experiment,
    table: Mapping[str, Any],
    arms: Sequence[Arm],
    work: Path,
    jobs: int,
    failures: list[Failure],
) -> dict[str, Any]:
    """Returns per arm its best ``choice`` and all ``trials``."""
    tune = experiment.tune
    assert tune is not None
    stream = open_stream(experiment, tune.rows)
    # The first fifth of the slice is the model's warm-up in every trial.
    burn_in = stream.rows // 5
    seed, found = experiment.seeds[0], {}
    for arm in arms:
        if arm.name == A_A:
            continue

        def score(choices: Sequence[Mapping[str, Any]], arm: Arm = arm) -> list[float | None]:
            trials = [
                _unit(experiment, table, stream, arm, seed, choice, burn_in, tune.rows)
                for choice in choices
            ]
            distinct = list({unit.id: unit for unit in trials}.values())
            failures.extend(run_units(distinct, work, jobs, stream.rows, f"tuning of {arm.name}"))
            return [_score(experiment, unit, work) for unit in trials]

        choice, trials = search(arm, tune, score, jobs)
        found[arm.name] = {"choice": choice, "trials": trials}
    return found


def _score(experiment: Experiment, unit: Unit, work: Path) -> float | None:
    """Returns the primary metric of a trial, turned so that less is better."""
    result = unit.result(work)
    if result is None:
        return None
    value = result["metrics"][result["labels"][0]][experiment.primary]
    if value is None:
        return None
    return -value if PRIMARY[experiment.primary] else value


def _unit(
    experiment: Experiment,
    table: Mapping[str, Any],
    stream: Stream,
    arm: Arm,
    seed: int,
    choice: Mapping[str, Any],
    tuning_burn_in: int = 0,
    tuning_rows: int = 0,
) -> Unit:
    burn_in = tuning_burn_in if tuning_rows else experiment.burn_in
    built = build_arm(experiment, arm, stream.schema, choice)
    own = replica(experiment, arm, seed)
    identity = unit_identity(experiment, stream, built, own, burn_in)
    label = "-tuning" if tuning_rows else ""
    return Unit(
        identity, arm.name, seed, table, tuning_rows, burn_in, choice, label, threads=own.threads
    )


def _costs(
    experiment: Experiment,
    table: Mapping[str, Any],
    stream: Stream,
    units: Mapping[str, Sequence[Unit]],
) -> dict[str, Unit]:
    """Returns the unit that times each arm against the base; an arm like the base has none."""
    base_choice = units[BASE][0].choice if BASE in units else {}
    base = build_arm(experiment, experiment.arm(BASE), stream.schema, base_choice)
    seed, rounds, found = experiment.seeds[0], experiment.cost_rounds, {}
    for name, planned in units.items():
        arm = build_arm(experiment, experiment.arm(name), stream.schema, planned[0].choice)
        if name == BASE or (name != A_A and arm.recipe == base.recipe):
            continue
        found[name] = Unit(
            cost_identity(stream, base, arm, seed, rounds), name, seed, table,
            choice=planned[0].choice, label="-costs", task="costs", base_choice=base_choice,
        )  # fmt: skip
    return found


def _by_seed(units: Mapping[str, list[Unit]]) -> list[list[Unit]]:
    """Returns the units of the first seed of every arm, then of the second, and so on."""
    most = max(len(planned) for planned in units.values())
    return [[p[n] for p in units.values() if n < len(p)] for n in range(most)]


def announce(
    experiment: Experiment, stream: Stream, n_arms: int, left_out: Mapping[str, str]
) -> None:
    """Says on stderr what is about to run, and what is not."""
    print(
        f"{experiment.name}: {n_arms} arms x {len(experiment.seeds)} seeds over "
        f"{stream.rows:,} examples of {stream.data_dir}",
        file=sys.stderr,
    )
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
