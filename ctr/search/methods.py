"""Two ways to a tower of a given cost: the controller in the stream, and random search."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ctr.config import override
from ctr.errors import ConfigError
from ctr.harness.replay import replay
from ctr.harness.scores import bucket_sums, values
from ctr.harness.stream import Stream
from ctr.learner import Learner
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.search.super_network import SuperNetworkModel
from ctr.techniques.width_search import WidthSearch

#: Told how many examples were learned, by all learners together.
Progress = Callable[[int], None]


def by_controller(
    recipe: Recipe,
    module: WidthSearch,
    stream: Stream,
    labels: tuple[str, ...],
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Trains the super-network once over the stream.

    Returns:
        The model's report, and what the search cost.
    """
    learner = Learner(compose(recipe, [module]), stream.schema, seed, labels)
    cpu_s, _ = _timed(learner, stream, 0, progress)
    model = learner.model
    assert isinstance(model, SuperNetworkModel)
    return {"method": "controller", **model.report(), "examples": stream.rows, "cpu_s": cpu_s}


def at_random(
    recipe: Recipe,
    module: WidthSearch,
    stream: Stream,
    labels: tuple[str, ...],
    seed: int,
    trials: int,
    progress: Progress,
) -> dict[str, Any]:
    """Trains random candidates that meet the target, each from scratch over the same stream.

    The first fifth of the stream is every candidate's warm-up and is not scored.

    Returns:
        The best candidate by progressive log loss, all trials, and what the search cost.

    Raises:
        ConfigError: no candidate meets the target.
    """
    if trials < 1:
        raise ConfigError(f"a random search needs at least 1 trial, received {trials}.")
    found = _candidates(recipe, module, stream, labels)
    # Ranks that save nothing make several candidates the same tower.
    towers = np.column_stack([found.widths, found.ranks])
    near = np.flatnonzero(found.near(module.target))
    distinct = near[np.unique(towers[near], axis=0, return_index=True)[1]]
    rng = np.random.default_rng(seed)
    drawn = rng.choice(distinct, min(trials, len(distinct)), replace=False)
    tried: list[dict[str, Any]] = []
    spent = 0.0
    for number in drawn:
        candidate = override(recipe, found.settings(int(number)))
        learner = Learner(candidate, stream.schema, seed, labels)
        before = len(tried) * stream.rows
        cpu_s, loss = _timed(learner, stream, stream.rows // 5, _after(before, progress))
        spent += cpu_s
        tried.append({"settings": found.settings(int(number)), "log_loss": loss})
    losses = [float(trial["log_loss"]) for trial in tried]
    best = int(drawn[int(np.argmin(losses))])
    return {
        "method": "random",
        "settings": found.settings(best),
        "hidden": found.widths[best].tolist(),
        "ranks": found.ranks[best].tolist(),
        "cost": float(found.cost[best]),
        "target": module.target,
        "candidates": len(distinct),
        "trials": tried,
        "examples": len(tried) * stream.rows,
        "cpu_s": spent,
    }


def _after(before: int, progress: Progress) -> Progress:
    return lambda done: progress(before + done)


def _candidates(
    recipe: Recipe, module: WidthSearch, stream: Stream, labels: tuple[str, ...]
) -> Any:
    learner = Learner(compose(recipe, [module]), stream.schema, 0, labels)
    assert isinstance(learner.model, SuperNetworkModel)
    return learner.model.architectures


def _timed(
    learner: Learner, stream: Stream, burn_in: int, progress: Progress
) -> tuple[float, float]:
    """Returns CPU seconds of learning without compilation, and the first label's log loss."""
    start = time.process_time()
    done = replay(learner, stream, burn_in, progress=progress)
    cpu_s = time.process_time() - start - done.cost.compile_cpu_s
    sums = bucket_sums(done.observed, done.prob[:, 0], 0, 0.0)
    return cpu_s, values(sums)["log_loss"]
