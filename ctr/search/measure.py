"""What a step's work outside the matrices is worth, in multiply-adds, from measured CPU time."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import cycle, islice

import numpy as np

from ctr.errors import ConfigError
from ctr.harness.stream import Stream
from ctr.learner import Learner
from ctr.models.deep import Deep, Towered, deep_part, with_deep_part
from ctr.models.layers import tower_macs
from ctr.recipe import Recipe

_ROUNDS = 15


def measured_overhead(recipe: Recipe, stream: Stream, labels: tuple[str, ...]) -> float:
    """Returns the multiply-adds that lookups, updates of the table and the like take the time of.

    Times the recipe and one whose hidden layers have a quarter of the units, launch by launch in
    turns, so that whatever else the machine does hits both.

    Raises:
        ConfigError: the narrow tower is not faster, so time does not depend on widths.
    """
    deep = deep_part(recipe.model, "width_search")
    narrow = replace(deep, hidden=tuple(max(1, n // 4) for n in deep.hidden), ranks=())
    recipes = (replace(recipe, model=with_deep_part(recipe.model, narrow)), recipe)
    learners = [Learner(r, stream.schema, 0, labels) for r in recipes]
    macs = [_macs(learner, part) for learner, part in zip(learners, (narrow, deep), strict=True)]
    shape = learners[0].chunk_shape
    chunk = next(iter(stream.chunks(learners[0]))).chunk(shape)
    spent: list[list[float]] = [[], []]
    for n in islice(cycle((0, 1)), 2 * (_ROUNDS + 1)):
        start = time.process_time()
        learners[n].learn(chunk)
        spent[n].append(time.process_time() - start)
    times = [float(np.median(rounds[1:])) for rounds in spent]  # the first round compiles
    return overhead(times, macs)


def _macs(learner: Learner, deep: Deep) -> float:
    model = learner.model
    assert isinstance(model, Towered)
    tower = tower_macs(model.n_tower_inputs, deep.hidden, deep.ranks)
    return float(model.macs_beside + tower + deep.hidden[-1] * len(learner.labels))


def overhead(times: list[float], macs: list[float]) -> float:
    """Returns h of ``time = slope * (macs + h)`` through two points, at least 0.

    Raises:
        ConfigError: the second point, with more multiply-adds, does not take longer.
    """
    slope = (times[1] - times[0]) / (macs[1] - macs[0])
    if slope <= 0.0:
        raise ConfigError(
            f"a tower of {macs[0]:,.0f} multiply-adds took {times[0]:.4f} s, one of "
            f"{macs[1]:,.0f} {times[1]:.4f} s: its width does not decide the time. Search without "
            "--measure, on an idle machine, or with a larger tower."
        )
    return max(0.0, times[1] / slope - macs[1])
