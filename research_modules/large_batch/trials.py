"""What a search has found, beyond its best trial.

``python -m research_modules.large_batch.trials REPLAY`` prints it for the folder of a replay that
tuned its arms: the best score says little without the number of trials that it took.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctr.errors import ConfigError

#: Numbers of trials whose expected best is shown.
BUDGETS = (1, 4, 16)


class Found(NamedTuple):
    """A summary of trials.

    Attributes:
        best: Least score.
        expected: Expected best of some number of trials, by that number.
        diverged: Share of trials without a finite score, or above the limit.
        at_edge: Parameters whose best value lies in an outer tenth of its range: widen them.
        trials: Number of trials.
    """

    best: float
    expected: dict[int, float]
    diverged: float
    at_edge: list[str]
    trials: int


def expected_best(scores: Sequence[float], n: int) -> float:
    """Returns the mean over all samples of n trials, with replacement, of their best score."""
    ordered = np.sort(np.asarray(scores, np.float64))
    k = len(ordered)
    # The best is the i-th if all n are at or above it, and not all above it.
    above = (1.0 - np.arange(k + 1) / k) ** n
    return float((ordered * (above[:-1] - above[1:])).sum())


def summary(
    scores: Sequence[float | None],
    choices: Sequence[Mapping[str, Any]],
    space: Mapping[str, Any],
    limit: float = math.inf,
) -> Found:
    """Returns what trials have found.

    Args:
        scores: Less is better; None or NaN for a failed trial, which counts as the worst finite
            one, or as ``limit`` where there is a limit.
        choices: Their parameters.
        space: Their ranges.
        limit: Scores above it count as diverged.

    Raises:
        ConfigError: no trial has a score.
    """
    finite = [s if s is not None and math.isfinite(s) else None for s in scores]
    reached = [s for s in finite if s is not None]
    if not reached:
        raise ConfigError("large_batch: every trial has failed; widen the ranges downwards.")
    worst = limit if math.isfinite(limit) else max(reached)
    filled = [worst if s is None else s for s in finite]
    best = int(np.argmin(filled))
    diverged = sum(s is None or s > limit for s in finite) / len(finite)
    edge = [p for p, values in space.items() if _at_edge(choices[best][p], values)]
    budgets = sorted({*(n for n in BUDGETS if n < len(filled)), len(filled)})
    expected = {n: expected_best(filled, n) for n in budgets}
    return Found(filled[best], expected, diverged, edge, len(filled))


def table(found: Mapping[str, Found]) -> str:
    """Returns summaries as a Markdown table."""
    budgets = sorted({n for one in found.values() for n in one.expected})
    head = ["", "best", *(f"E[best of {n}]" for n in budgets), "diverged", "at an edge"]
    lines = [head, ["---"] * len(head)]
    for name, one in found.items():
        expected = [f"{one.expected[n]:.4g}" if n in one.expected else "" for n in budgets]
        edge = ", ".join(one.at_edge) or "none"
        lines.append([name, f"{one.best:.5g}", *expected, f"{one.diverged:.0%}", edge])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _at_edge(value: Any, values: Any) -> bool:
    if not isinstance(values, Mapping):
        return False
    low, high, x = float(values["low"]), float(values["high"]), float(value)
    if values.get("log"):
        low, high, x = math.log(low), math.log(high), math.log(x)
    return not 0.1 <= (x - low) / (high - low) <= 0.9


def of_replay(folder: Path) -> dict[str, Found]:
    """Returns the summary of every tuned arm of a replay.

    Raises:
        ConfigError: the folder holds no replay that tuned.
    """
    file = folder / "report.json"
    report = json.loads(file.read_text()) if file.is_file() else {}
    if not report.get("tuned"):
        raise ConfigError(f"{folder} holds no replay with a [tune] table.")
    page = report["experiment"]
    own = {arm["name"]: arm.get("tune", {}) for arm in page.get("arms", ())}
    found = {}
    for arm, tuned in report["tuned"].items():
        trials = tuned["trials"]
        if trials:
            space = {**page["tune"].get("parameters", {}), **own.get(arm, {})}
            scores = [trial["score"] for trial in trials]
            found[arm] = summary(scores, [trial["choice"] for trial in trials], space)
    return found


def main() -> None:
    """Prints the table of a replay."""
    parser = argparse.ArgumentParser(description="What the tuning of a replay has found.")
    parser.add_argument("replay", type=Path, help="folder that octr replay wrote")
    print(table(of_replay(parser.parse_args().replay)))


if __name__ == "__main__":
    main()
