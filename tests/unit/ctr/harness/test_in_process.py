"""Tuning in one process: equal trials, fresh starts, and the intervals of a replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ctr.harness.arms import build_arm
from ctr.harness.experiment import parse
from ctr.harness.in_process import Contender, Tuned, difference, half_width, tune
from ctr.harness.replay import replay
from ctr.harness.scores import bucket_sums
from ctr.harness.stream import open_stream
from ctr.learner import Learner


def turn(learner: Learner, choice: Any) -> None:
    update: Any = learner.update
    update.states[-1].optimizer.learning_rate.assign(choice["rate"])


def test_trials_start_afresh_and_the_winner_is_run_as_a_replay_would(
    random_data: Path, page: Callable[..., dict[str, Any]]
) -> None:
    experiment = parse(page(random_data))
    stream = open_stream(experiment)
    recipe = build_arm(experiment, experiment.all_arms[0], stream.schema).recipe
    rates = [0.02, float("nan"), 1e-6]
    found = tune(Contender(recipe, {"rate": rates}, turn), stream, 1000, 3, (1, 2), "grid")
    assert [choice["rate"] for choice in found.choices][::2] == rates[::2]
    assert found.scores[1] == float("inf")
    assert found.best["rate"] == rates[int(np.argmin(found.scores))]
    # Whatever was tried before, the last pass is that of a new learner of its seed.
    learner = Learner(recipe, stream.schema, 2)
    turn(learner, found.best)
    alone = replay(learner, stream, 1000)
    sums = bucket_sums(alone.observed, alone.prob[:, 0], 0, 0.0)
    np.testing.assert_array_equal(found.sums[1]["scalar"], sums["scalar"])
    assert len(set(found.losses)) == 2


def pass_of(losses: np.ndarray) -> dict[str, np.ndarray]:
    weight = np.full(len(losses), 100.0)
    return {"scalar": np.stack([weight, weight / 2, weight / 2, weight * losses], axis=1)}


def test_the_interval_is_the_wider_one_of_seeds_and_time() -> None:
    rng = np.random.default_rng(0)
    base = Tuned([], [], {}, [pass_of(0.6 + 0.01 * rng.normal(size=60)) for _ in range(2)])

    def shifted(by_seed: tuple[float, float], noise: float) -> Tuned:
        sums = []
        for one, shift in zip(base.sums, by_seed, strict=True):
            losses = one["scalar"][:, 3] / 100.0 + shift + noise * rng.normal(size=60)
            sums.append(pass_of(losses))
        return Tuned([], [], {}, sums)

    same = difference(base, base)
    assert (same.value, half_width(same)) == (0.0, 0.0)
    seeds_differ = difference(shifted((0.0, 0.02), 0.0), base)
    assert half_width(seeds_differ) > 0.1
    time_differs = difference(shifted((0.01, 0.01), 0.05), base)
    assert 0.002 < half_width(time_differs) < 0.1
