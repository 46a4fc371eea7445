from __future__ import annotations

import pytest

from ctr.bench.timing import Arm, Target, measure, ratio, table


def test_arms_take_turns_and_the_first_call_does_not_count() -> None:
    calls: list[str] = []
    arms = [Arm(name, lambda name=name: calls.append(name), 10) for name in "ab"]
    timings = measure(arms, 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in timings.items()} == {"a": 3, "b": 3}


def test_more_work_costs_more_cpu_time() -> None:
    arms = [Arm(str(n), lambda n=n: sum(range(n)), 1) for n in (20_000, 2_000_000)]
    assert ratio(measure(arms, 3), "2000000", "20000") > 10.0


def test_the_ratio_is_the_median_of_pairs() -> None:
    timings = {"a": [2.0, 30.0, 4.0], "b": [1.0, 1.0, 2.0]}
    assert ratio(timings, "a", "b") == 2.0


@pytest.mark.parametrize(
    ("value", "at_least", "passed"),
    [(0.7, True, True), (0.69, True, False), (0.7, False, True), (0.71, False, False)],
)
def test_targets(value: float, at_least: bool, passed: bool) -> None:
    target = Target("x", value, 0.7, at_least)
    assert target.passed is passed
    assert target.as_dict()["passed"] is passed
    assert ("FAIL" in table({"arm": [1.0]}, [target])) is not passed
