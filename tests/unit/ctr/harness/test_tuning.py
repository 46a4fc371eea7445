from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ctr.errors import ConfigError
from ctr.harness.experiment import Arm, Tune
from ctr.harness.tuning import grid, halton_choices, random_choices, search, space_of


def distance(choices: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return [abs(choice["a"] - 0.3) for choice in choices]


def test_grid_is_cut_evenly() -> None:
    space = {"a": [1, 2, 3], "b": [10, 20]}
    assert grid(space, 6)[:3] == [{"a": 1, "b": 10}, {"a": 1, "b": 20}, {"a": 2, "b": 10}]
    assert len(grid(space, 100)) == 6
    assert grid(space, 2) == [{"a": 1, "b": 10}, {"a": 3, "b": 20}]


def test_random_choices_stay_inside_and_are_reproducible() -> None:
    space = {"a": {"low": 0.001, "high": 1.0, "log": True}, "n": {"low": 1, "high": 9}, "c": ["x"]}
    found = random_choices(space, 200, seed=3)
    assert found == random_choices(space, 200, seed=3)
    assert found[:5] == random_choices(space, 5, seed=3)
    values = sorted(choice["a"] for choice in found)
    assert 0.001 <= values[0] < 0.01
    assert 0.1 < values[-1] <= 1.0
    assert values[100] == pytest.approx(0.0316, rel=0.5)  # the middle of the logarithms
    assert {type(choice["n"]) for choice in found} == {int}
    assert {choice["c"] for choice in found} == {"x"}


def test_halton_tries_the_same_places_of_every_space() -> None:
    one = halton_choices({"a": {"low": 0.0, "high": 1.0}, "c": ["x", "y"]}, 8, seed=3)
    other = halton_choices({"b": {"low": 1e-4, "high": 1.0, "log": True}, "c": ["x", "y"]}, 8, 3)
    for ours, theirs in zip(one, other, strict=True):
        assert theirs["b"] == pytest.approx(1e-4 ** (1.0 - ours["a"]), rel=1e-3)
        assert ours["c"] == theirs["c"]
    # No half of a range, and no value, is left out for long.
    assert sorted(int(2 * choice["a"]) for choice in one) == [0] * 4 + [1] * 4
    assert halton_choices({"a": ["x"]}, 3, seed=0) == [{"a": "x"}] * 3


@pytest.mark.parametrize("method", ["grid", "random", "halton", "optuna"])
def test_every_arm_gets_the_same_number_of_trials(method: str) -> None:
    if method == "optuna":
        pytest.importorskip("optuna")
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    tune = Tune(rows=10, trials=6, method=method, parameters={"a": values})
    for arm in (Arm("one"), Arm("two", tune={"b": [1, 2]})):
        choice, trials = search(arm, tune, distance, batch=2)
        assert len(trials) == 6
        best = min(trials, key=lambda trial: trial["score"])
        assert choice == best["choice"]
        assert set(choice) == {"a", *arm.tune}


def test_failed_trials_do_not_win() -> None:
    tune = Tune(rows=10, trials=3, method="grid", parameters={"a": [1, 2, 3]})
    assert search(Arm("x"), tune, lambda _: [None, 5.0, None], 1)[0] == {"a": 2}
    choice, trials = search(Arm("x"), tune, lambda _: [None, None, None], 1)
    assert choice is None
    assert len(trials) == 3


def test_nothing_to_tune_is_no_trial() -> None:
    assert search(Arm("x"), Tune(rows=10), distance, 1) == ({}, [])


@pytest.mark.parametrize(
    ("values", "method", "message"),
    [
        (3, "random", "expected a list"),
        ([], "random", "expected a list"),
        ({"low": 2, "high": 1}, "random", "low < high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "random", "low > 0 if log"),
        ({"low": 0.0, "hihg": 1.0}, "random", "low, high, log"),
        ({"low": 0.0, "high": 1.0}, "grid", "a grid needs a list"),
    ],
)
def test_bad_spaces_are_named(values: Any, method: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(Tune(rows=10, method=method, parameters={"a.b": values}), Arm("x"))
