"""Equal tuning of every arm on the stream's first examples.

Each arm, the base included, gets the same number of trials on the same examples with the first
seed; these examples are never scored in the comparison.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from ctr.errors import ConfigError
from ctr.harness.experiment import Arm, Tune

#: Values of a tuned parameter: a list, or a range {low, high, log}.
Space = Mapping[str, Any]
#: Scores choices, in order; smaller is better, None for a failed trial.
Score = Callable[[Sequence[Mapping[str, Any]]], Sequence[float | None]]


class Tuner(Protocol):
    """Searches a space."""

    def __call__(self, space: Space, tune: Tune, score: Score, batch: int) -> list[dict[str, Any]]:
        """Returns the trials, each ``{"choice": ..., "score": ...}``."""
        ...


def space_of(tune: Tune, arm: Arm) -> dict[str, Any]:
    """Returns the parameters that are tuned in an arm.

    Raises:
        ConfigError: a parameter is neither a list of values nor a range.
    """
    space = {**tune.parameters, **arm.tune}
    for path, values in space.items():
        if isinstance(values, list) and values:
            continue
        if isinstance(values, Mapping) and set(values) <= {"low", "high", "log"}:
            low, high = values.get("low"), values.get("high")
            if _is_range(low, high, bool(values.get("log"))):
                if tune.method == "grid":
                    raise ConfigError(
                        f"tuned parameter {path!r}: a grid needs a list of values, received a "
                        "range. Write the values, or use method = 'random'."
                    )
                continue
        raise ConfigError(
            f"tuned parameter {path!r}: expected a list of values or {{low, high, log}} with "
            f"low < high (and low > 0 if log), received {values!r}."
        )
    return space


def _is_range(low: Any, high: Any, log: bool) -> bool:
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return False
    return low < high and (low > 0 or not log)


def search(
    arm: Arm, tune: Tune, score: Score, batch: int
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Tunes one arm.

    Args:
        arm: The arm.
        tune: How.
        score: Runs and scores choices.
        batch: Choices that are scored at a time.

    Returns:
        The best choice (None if every trial failed), and all trials. An arm without a parameter
        has the empty choice.

    Raises:
        ConfigError: the space cannot be searched.
    """
    space = space_of(tune, arm)
    if not space:
        return {}, []
    tuners: dict[str, Tuner] = {"grid": _listed, "random": _listed, "halton": _listed,
                                "optuna": _optuna}  # fmt: skip
    trials = tuners[tune.method](space, tune, score, batch)
    done = [trial for trial in trials if trial["score"] is not None]
    if not done:
        return None, trials
    best = min(done, key=lambda trial: float(trial["score"]))
    return dict(best["choice"]), trials


def grid(space: Space, trials: int) -> list[dict[str, Any]]:
    """Returns at most ``trials`` points of the full grid, evenly spread over it."""
    points = [
        dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
    ]
    if len(points) <= trials:
        return points
    places = np.linspace(0, len(points) - 1, trials).round().astype(int)
    return [points[place] for place in places]


def random_choices(space: Space, trials: int, seed: int) -> list[dict[str, Any]]:
    """Returns random points; the n-th depends on the seed and n alone."""
    rng = np.random.default_rng(seed)
    return [_point(space, rng.random(len(space))) for _ in range(trials)]


def halton_choices(space: Space, trials: int, seed: int) -> list[dict[str, Any]]:
    """Returns the points of a scrambled Halton sequence, which leave no part of the space empty.

    Spaces with equally many parameters get the same points of the unit cube, so that no arm is
    luckier than another in where it was tried.
    """
    cube = qmc.Halton(len(space), scramble=True, rng=np.random.default_rng(seed)).random(trials)
    return [_point(space, place) for place in cube]


def _point(space: Space, place: NDArray[np.float64]) -> dict[str, Any]:
    return {
        path: _at(values, float(u)) for (path, values), u in zip(space.items(), place, strict=True)
    }


def _at(values: Any, u: float) -> Any:
    if isinstance(values, list):
        return values[min(int(u * len(values)), len(values) - 1)]
    low, high = values["low"], values["high"]
    if values.get("log"):
        drawn = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    else:
        drawn = low + u * (high - low)
    if isinstance(low, int) and isinstance(high, int):
        return round(drawn)
    return float(f"{drawn:.6g}")


def _listed(space: Space, tune: Tune, score: Score, batch: int) -> list[dict[str, Any]]:
    del batch
    if tune.method == "grid":
        choices = grid(space, tune.trials)
    else:
        draw = halton_choices if tune.method == "halton" else random_choices
        choices = draw(space, tune.trials, tune.seed)
    return [{"choice": c, "score": s} for c, s in zip(choices, score(choices), strict=True)]


def _optuna(space: Space, tune: Tune, score: Score, batch: int) -> list[dict[str, Any]]:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "method = 'optuna' needs it: pip install 'online-ctr[tune]', or use 'random'."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=tune.seed))
    trials: list[dict[str, Any]] = []
    while len(trials) < tune.trials:
        asked = [study.ask() for _ in range(min(batch, tune.trials - len(trials)))]
        choices = [{p: _suggest(t, p, values) for p, values in space.items()} for t in asked]
        for trial, choice, value in zip(asked, choices, score(choices), strict=True):
            failed = optuna.trial.TrialState.FAIL
            study.tell(trial, value, state=failed if value is None else None)
            trials.append({"choice": choice, "score": value})
    return trials


def _suggest(trial: Any, path: str, values: Any) -> Any:
    if isinstance(values, list):
        # Optuna's categories are scalars; lists such as layer widths go as text.
        texts = [json.dumps(value) for value in values]
        return json.loads(trial.suggest_categorical(path, texts))
    low, high, log = values["low"], values["high"], bool(values.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(path, low, high, log=log)
    return trial.suggest_float(path, low, high, log=log)
