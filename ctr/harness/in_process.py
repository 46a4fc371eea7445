"""Equal tuning of several contenders on a log, in one process.

``octr replay`` starts and compiles a process per trial, which short trials spend most of their time
on. Here hyper-parameters that are variables of the learner let all trials and seeds of a contender
share one compilation, so that many trials are cheap. The rules are those of ``octr replay``: the
same points of the unit cube for all, chosen on the first examples, compared on the later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.harness.replay import Replayed, replay
from ctr.harness.scores import METRICS, bucket_sums
from ctr.harness.stats import Interval, block_bootstrap, t_interval
from ctr.harness.stream import Stream
from ctr.harness.tuning import grid, halton_choices
from ctr.learner import Learner
from ctr.recipe import Recipe

#: Sums per time bucket of one pass.
Sums = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Contender:
    """What is tuned.

    Attributes:
        recipe: What to learn with.
        space: Tuned parameters: path -> ``{low, high, log}`` or a list of values.
        turn: Sets a choice in the learner's variables.
    """

    recipe: Recipe
    space: Mapping[str, Any]
    turn: Callable[[Learner, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Tuned:
    """What was found for a contender.

    Attributes:
        choices: The trials.
        scores: Their log losses on the first examples, in order; infinite where the loss was lost.
        best: The best choice.
        sums: Sums on the later examples, one per seed.
    """

    choices: list[dict[str, Any]]
    scores: list[float]
    best: dict[str, Any]
    sums: list[Sums]

    @property
    def losses(self) -> NDArray[np.float64]:
        """Log loss on the later examples by seed, float64[seeds]."""
        return np.array([_loss(one) for one in self.sums])


def tune(
    contender: Contender,
    stream: Stream,
    rows: int,
    trials: int,
    seeds: Sequence[int],
    method: str = "halton",
) -> Tuned:
    """Tunes a contender on the first examples and runs its best choice for each seed.

    Args:
        contender: What to tune.
        stream: The log.
        rows: Examples that are tuned on, and not scored after that.
        trials: Points of the unit cube; equal spaces get equal points.
        seeds: Initial values of the comparison; the first one serves the trials.
        method: ``halton``, or ``grid`` for a space of lists.
    """
    learner = Learner(contender.recipe, stream.schema, seeds[0])
    fresh = {seed: _values(contender.recipe, stream, seed) for seed in seeds}

    def run(choice: Mapping[str, Any], seed: int, part: Stream, burn_in: int) -> Sums | None:
        for variable, value in zip(learner.variables, fresh[seed], strict=True):
            # A copy: XLA may write a variable's next value into the memory of the last one.
            variable.assign(value.copy())
        contender.turn(learner, choice)
        found: Replayed = replay(learner, part, burn_in)
        if not np.isfinite(found.prob).all():
            return None
        return bucket_sums(found.observed, found.prob[:, 0], 0, 0.0)

    if method == "grid":
        choices = grid(contender.space, trials)
    else:
        choices = halton_choices(contender.space, trials, seed=0)
    first = replace(stream, rows=rows)
    tried = [run(choice, seeds[0], first, 0) for choice in choices]
    scores = [float("inf") if one is None else _loss(one) for one in tried]
    best = choices[int(np.argmin(scores))]
    done = [run(best, seed, stream, rows) for seed in seeds]
    return Tuned(choices, scores, best, [one for one in done if one is not None])


def difference(arm: Tuned, base: Tuned) -> Interval:
    """Returns the difference of two log losses with the wider of two 95 % intervals.

    One is over seeds, the other over time (block bootstrap of the seeds' sums).
    """
    pairs = list(zip(arm.sums, base.sums, strict=True))
    by_seed = t_interval([_loss(one) - _loss(other) for one, other in pairs])
    one, other = ({"scalar": np.sum([sums[i]["scalar"] for sums in pairs], axis=0)} for i in (0, 1))
    by_time = block_bootstrap(one, other, METRICS["log_loss"])
    # NaN, for too few seeds or buckets, is never the wider one.
    return by_time if not half_width(by_seed) >= half_width(by_time) else by_seed


def half_width(interval: Interval) -> float:
    """Returns half the width of an interval; NaN without one."""
    if interval.low is None or interval.high is None:
        return float("nan")
    return 0.5 * (interval.high - interval.low)


def _values(recipe: Recipe, stream: Stream, seed: int) -> list[NDArray[Any]]:
    return [v.numpy().copy() for v in Learner(recipe, stream.schema, seed).variables]


def _loss(sums: Sums) -> float:
    total = {"scalar": sums["scalar"].sum(axis=0, keepdims=True)}
    return float(METRICS["log_loss"](total)[0])
