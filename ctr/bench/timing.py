"""Paired measurement: arms take turns in one process, and CPU time is what counts.

Wall time on a shared machine says more about the neighbours than about the code. CPU time moves
too, with the clock and the caches, but equally for arms that take turns; so only ratios of one
run are compared, each formed inside its round.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arm:
    """Something to measure.

    Attributes:
        name: Shown in tables.
        run: Does the work once.
        examples: Examples that one call works through.
    """

    name: str
    run: Callable[[], object]
    examples: int


#: CPU microseconds per example by arm, one value per round.
Timings = Mapping[str, Sequence[float]]


def measure(arms: Sequence[Arm], rounds: int) -> dict[str, list[float]]:
    """Runs every arm once to warm up, then all arms in turn, ``rounds`` times.

    Every second round goes through the arms backwards, so that none always follows the same one.
    """
    for arm in arms:
        _say(f"warming up: {arm.name}")
        arm.run()
    timings: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for number in range(rounds):
        _say(f"round {number + 1} of {rounds}")
        for arm in arms if number % 2 == 0 else reversed(arms):
            start = time.process_time()
            arm.run()
            timings[arm.name].append(1e6 * (time.process_time() - start) / arm.examples)
    return timings


def ratio(timings: Timings, above: str, below: str) -> float:
    """Returns the median over rounds of the cost of ``above`` divided by that of ``below``."""
    pairs = zip(timings[above], timings[below], strict=True)
    return statistics.median(a / b for a, b in pairs)


@dataclass(frozen=True)
class Target:
    """A bar that a measured ratio has to meet.

    Attributes:
        name: What is compared.
        value: The measured ratio.
        bar: The limit.
        at_least: True if the ratio must not be below the bar, False if not above it.
    """

    name: str
    value: float
    bar: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        """True if the bar is met."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data."""
        return {
            "name": self.name,
            "ratio": round(self.value, 4),
            "bar": self.bar,
            "direction": ">=" if self.at_least else "<=",
            "passed": self.passed,
        }


def table(timings: Timings, targets: Sequence[Target]) -> str:
    """Returns what was measured as plain text."""
    lines = [f"{'arm':<44}{'CPU us/example':>15}{'rounds':>22}"]
    for name, values in timings.items():
        spread = f"{min(values):.1f} - {max(values):.1f}"
        lines.append(f"{name:<44}{statistics.median(values):>15.2f}{spread:>22}")
    lines.append("")
    lines.append(f"{'target':<54}{'ratio':>8}{'bar':>9}  verdict")
    for target in targets:
        sign = ">=" if target.at_least else "<="
        verdict = "pass" if target.passed else "FAIL"
        lines.append(f"{target.name:<54}{target.value:>8.3f}{sign:>4} {target.bar:<5g} {verdict}")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
