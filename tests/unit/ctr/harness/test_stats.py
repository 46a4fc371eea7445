from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr.errors import CtrError
from ctr.harness.stats import (
    Interval,
    Sums,
    block_bootstrap,
    block_counts,
    holm,
    joint_p,
    median_interval,
    pair_differences,
    pair_interval,
    sample_size,
    t_interval,
    verdict,
)


def loss(sums: Sums) -> NDArray[np.float64]:
    return sums["s"][:, 0] / sums["s"][:, 1]


def buckets(rng: np.random.Generator, n: int, effect: float = 0.0) -> tuple[dict, dict]:
    """Sums of two arms whose difference has the given mean and a memory of a few buckets."""
    weight = rng.uniform(50, 150, n)
    shared = rng.normal(0.3, 0.05, n)
    noise = np.zeros(n)
    for i in range(1, n):
        noise[i] = 0.3 * noise[i - 1] + rng.normal(0, 0.01)
    base = {"s": np.stack([weight * shared, weight], axis=1)}
    arm = {"s": np.stack([weight * (shared + effect + noise), weight], axis=1)}
    return arm, base


def coverage(effect: float, n: int, repeats: int = 400) -> float:
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(repeats):
        arm, base = buckets(rng, n, effect)
        found = block_bootstrap(arm, base, loss, n_resamples=200, seed=int(rng.integers(1 << 30)))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= effect <= found.high
    return inside / repeats


@pytest.mark.parametrize(("effect", "n"), [(0.0, 60), (0.0, 30), (-0.002, 60)])
def test_bootstrap_interval_covers_the_true_difference(effect: float, n: int) -> None:
    # 400 repeats: two standard errors are 2.2 points; the blocks' bias costs a few more.
    assert 0.91 <= coverage(effect, n) <= 0.985


@pytest.mark.parametrize("n", [6, 12, 25])
def test_median_interval_covers_the_true_median_of_any_distribution(n: int) -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(2000):
        found = median_interval(rng.lognormal(0.0, 2.0, n))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 1.0 <= found.high
    assert 0.94 <= inside / 2000 <= 0.99


def test_median_interval_by_hand() -> None:
    # 2 P(Binomial(6, 1/2) < 1) = 1/32: the interval is from the smallest to the largest value.
    found = median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    assert (found.value, found.low, found.high, found.p) == (3.5, 1.0, 6.0, 1 / 32)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]).low is None
    with pytest.raises(CtrError, match="no values"):
        median_interval([])


def test_t_interval_covers_zero_in_an_a_a_comparison() -> None:
    rng = np.random.default_rng(3)
    found = [t_interval(rng.normal(0, 1, 3)) for _ in range(2000)]
    inside = np.mean([i.low <= 0 <= i.high for i in found if i.low is not None and i.high])
    assert 0.935 <= inside <= 0.965


def test_t_interval_by_hand() -> None:
    found = t_interval([1.0, 2.0, 3.0])
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 - 4.302652729911275 * (1 / 3) ** 0.5)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)


def test_one_seed_gives_no_interval() -> None:
    assert t_interval([0.5]) == Interval(0.5)
    with pytest.raises(CtrError, match="no values"):
        t_interval([])


def test_identical_arms_differ_by_exactly_nothing() -> None:
    arm, _ = buckets(np.random.default_rng(0), 60)
    assert block_bootstrap(arm, arm, loss) == Interval(0.0, 0.0, 0.0, 1.0, 0.0)
    assert t_interval([0.0, 0.0, 0.0]).p == 1.0


def test_too_few_blocks_give_no_interval() -> None:
    arm, base = buckets(np.random.default_rng(0), 4)
    assert block_bootstrap(arm, base, loss, block=2).p is None


def test_resamples_are_runs_of_neighbours() -> None:
    counts = block_counts(12, 50, seed=1, block=4)
    assert (counts.sum(axis=1) == 12).all()
    whole = block_counts(12, 50, seed=1, block=12)
    assert (whole == 1).all()


def test_planted_gain_is_found_at_the_predicted_sample_size() -> None:
    effect, deviation, repeats = 0.02, 0.1, 600
    n = sample_size(effect, deviation, power=0.8)
    assert n == 197
    rng = np.random.default_rng(11)
    found = [t_interval(rng.normal(effect, deviation, n)) for _ in range(repeats)]
    power = np.mean([i.p is not None and i.p < 0.05 for i in found])
    assert 0.75 <= power <= 0.85
    with pytest.raises(CtrError, match="effect of 0"):
        sample_size(0.0, 1.0)


def test_planted_gain_is_found_by_the_bootstrap_at_the_predicted_length() -> None:
    # Independent buckets of equal weight: the deviation of one bucket's difference is 0.01.
    effect, deviation = -0.0025, 0.01
    n = sample_size(effect, deviation, power=0.9)
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        noise = rng.normal(effect, deviation, n)
        base = {"s": np.ones((n, 2))}
        arm = {"s": np.stack([1 + noise, np.ones(n)], axis=1)}
        found = block_bootstrap(arm, base, loss, n_resamples=200, block=1)
        hits += verdict(found.value, joint_p(found), more_is_better=False) == "better"
    assert 0.83 <= hits / 200 <= 0.97


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, then the running maximum.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("difference", "p", "more", "words"),
    [
        (0.1, 0.01, True, "better"),
        (0.1, 0.01, False, "worse"),
        (-0.1, 0.01, False, "better"),
        (-0.1, 0.05, False, "no difference shown"),
        (0.0, 0.0, True, "no difference shown"),
    ],
)
def test_verdicts(difference: float, p: float, more: bool, words: str) -> None:
    assert verdict(difference, p, more) == words


def test_a_difference_must_stand_up_to_time_and_to_seeds() -> None:
    sure, unsure = Interval(1.0, 0.9, 1.1, 0.001, 0.1), Interval(1.0, -1.0, 3.0, 0.3, 1.0)
    assert joint_p(sure, unsure) == 0.3
    assert joint_p(sure, Interval(1.0)) == 0.001
    assert joint_p(Interval(1.0)) == 1.0


def test_prediction_difference_of_pairs() -> None:
    a, b = np.full(4, 0.1), np.full(4, 0.2)
    assert pair_differences([a, b, a]) == pytest.approx([2 / 3, 0.0, 2 / 3])
    assert pair_interval([], 1) is None
    assert pair_interval([0.3], 2) == Interval(0.3)


def test_pair_interval_covers_the_mean_over_seeds() -> None:
    rng = np.random.default_rng(2)
    n, inside = 5, 0
    for _ in range(600):
        of_seed = rng.normal(0, 0.02, n)
        pairs = [0.2 + of_seed[i] + of_seed[j] for i, j in itertools.combinations(range(n), 2)]
        found = pair_interval(pairs, n)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.2 <= found.high
    assert 0.93 <= inside / 600 <= 0.97
