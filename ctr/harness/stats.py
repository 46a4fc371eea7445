"""Paired statistics: is an arm better than the base, and how sure is that?

Two sources of chance are kept apart. *Time*: another week would have brought other examples; the
moving-block bootstrap resamples runs of neighbouring time buckets, the same ones for both arms.
*Seeds*: another initialization would have given other weights; a t-interval over per-seed
differences covers that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtri, stdtr, stdtrit

from ctr.errors import CtrError
from ctr.metrics.difference import prediction_difference

#: Sums per time bucket by name, float64[n_buckets, ...]; resampled ones are float64[R, ...].
Sums = Mapping[str, NDArray[np.float64]]
#: Turns sums over buckets, float64[R, ...] each, into a metric float64[R].
Statistic = Callable[[Sums], NDArray[np.float64]]

_CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval.

    Attributes:
        value: The estimate.
        low: Lower end; None where there are too few observations for an interval.
        high: Upper end.
        p: Two-sided p-value of the value being 0; None where there is no interval.
        error: Standard error.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    error: float | None = None

    @classmethod
    def of(cls, value: float, error: float, df: float, level: float = 0.95) -> Interval:
        """Student's interval; an error of exactly 0 (identical arms) has p 1 for the value 0."""
        if not (math.isfinite(error) and math.isfinite(value)):
            return cls(value)
        if error == 0.0:
            return cls(value, value, value, 1.0 if value == 0.0 else 0.0, 0.0)
        half = float(stdtrit(df, 0.5 + level / 2)) * error
        p = 2.0 * float(stdtr(df, -abs(value) / error))
        return cls(value, value - half, value + half, p, error)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of a mean, e.g. of the paired differences of several seeds.

    Args:
        values: float[n]; one value gives no interval.
        level: Coverage.

    Raises:
        CtrError: there is no value.
    """
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        raise CtrError("t-interval: received no values. Run at least one seed.")
    if len(x) == 1:
        return Interval(float(x[0]))
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval.of(float(x.mean()), error, len(x) - 1, level)


def median_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of a median by order statistics, with the p-value of the sign test.

    Nothing is assumed on the distribution, so that a few values that were disturbed do no harm.

    Args:
        values: float[n]; fewer than 6 give no interval at 95 %.
        level: Coverage, at least.

    Raises:
        CtrError: there is no value.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if not len(x):
        raise CtrError("median: received no values.")
    n, value = len(x), float(np.median(x))
    # The k-th smallest and largest value miss the median with chance 2 P(Binomial(n, 1/2) < k).
    k = int(np.sum(2 * bdtr(np.arange(n // 2 + 1), n, 0.5) <= 1 - level))
    above, below = int(np.sum(x > 0)), int(np.sum(x < 0))
    p = min(1.0, 2 * float(bdtr(min(above, below), above + below, 0.5))) if above + below else 1.0
    if not k:
        return Interval(value, p=p)
    return Interval(value, float(x[k - 1]), float(x[n - k]), p)


def block_length(n_buckets: int) -> int:
    """Returns the buckets per block, n^(1/3) rounded, the usual growth for a mean."""
    return max(1, round(n_buckets ** (1 / 3)))


def block_counts(
    n_buckets: int, n_resamples: int, seed: int, block: int | None = None
) -> NDArray[np.float64]:
    """Returns float64[R, n_buckets]: how often each moving-block resample holds each bucket."""
    length = min(block or block_length(n_buckets), n_buckets)
    n_blocks = math.ceil(n_buckets / length)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n_buckets - length + 1, size=(n_resamples, n_blocks))
    picked = (starts[:, :, None] + np.arange(length)).reshape(n_resamples, -1)[:, :n_buckets]
    flat = picked + np.arange(n_resamples)[:, None] * n_buckets
    counts = np.bincount(flat.reshape(-1), minlength=n_resamples * n_buckets)
    return counts.reshape(n_resamples, n_buckets).astype(np.float64)


def block_bootstrap(
    arm: Sums,
    base: Sums,
    statistic: Statistic,
    n_resamples: int = 1000,
    seed: int = 0,
    block: int | None = None,
    level: float = 0.95,
) -> Interval:
    """Interval over time of ``statistic(arm) - statistic(base)``.

    Both arms saw the same examples, so both are resampled by the same blocks of buckets; what
    they have in common cancels. The bootstrap gives the standard error, Student's quantile with
    one degree of freedom less than there are blocks the width, because few blocks know little
    about their own spread.

    Args:
        arm: Sums per bucket.
        base: Sums of the same names, buckets and shapes.
        statistic: The metric as a function of summed sums.
        n_resamples: Bootstrap resamples.
        seed: Decides the resamples.
        block: Buckets per block; :func:`block_length` if None.
        level: Coverage.
    """
    value = float(_difference(arm, base, statistic, None)[0])
    n = len(next(iter(arm.values())))
    blocks = n / min(block or block_length(n), n)
    if blocks < 3:
        return Interval(value)
    counts = block_counts(n, n_resamples, seed, block)
    parts = [
        _difference(arm, base, statistic, counts[at : at + _CHUNK])
        for at in range(0, n_resamples, _CHUNK)
    ]
    drawn = np.concatenate(parts)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 0.9 * n_resamples:
        return Interval(value)
    # The mean of n buckets that are drawn from n has (n - 1) / n of the variance looked for.
    error = float(drawn.std(ddof=1)) * math.sqrt(blocks / (blocks - 1))
    return Interval.of(value, error, blocks - 1, level)


def _difference(
    arm: Sums, base: Sums, statistic: Statistic, counts: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    def total(sums: Sums) -> NDArray[np.float64]:
        if counts is None:
            return statistic({k: v.sum(axis=0, keepdims=True) for k, v in sums.items()})
        return statistic({k: np.tensordot(counts, v, axes=1) for k, v in sums.items()})

    return total(arm) - total(base)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's step-down adjusted p-values, in the given order.

    Comparing an adjusted p-value to alpha keeps the chance of even one false alarm over all
    comparisons below alpha, whatever their dependence.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def joint_p(*sources: Interval) -> float:
    """Returns the p-value of a difference that must stand up to every source of chance at once.

    It is the largest one, which errs on the side of "no difference shown"; sources without an
    interval do not count, and if none has one the result is 1.
    """
    known = [interval.p for interval in sources if interval.p is not None]
    return max(known, default=1.0)


def verdict(difference: float, adjusted_p: float, more_is_better: bool, alpha: float = 0.05) -> str:
    """Returns "better", "worse" or "no difference shown"."""
    if not adjusted_p < alpha or difference == 0.0:
        return "no difference shown"
    return "better" if (difference > 0) == more_is_better else "worse"


def sample_size(effect: float, deviation: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Returns how many paired observations show a mean difference with the given power.

    Args:
        effect: True mean of the paired differences.
        deviation: Standard deviation of one paired difference.
        power: Chance that the two-sided test at ``alpha`` finds it.
        alpha: Level of the test.

    Raises:
        CtrError: the effect is 0, which no sample can show.
    """
    if effect == 0.0:
        raise CtrError("sample size: an effect of 0 cannot be shown by any sample.")
    z = float(ndtri(1 - alpha / 2) + ndtri(power))
    return max(2, math.ceil((z * deviation / effect) ** 2))


def pair_differences(predictions: Sequence[ArrayLike]) -> list[float]:
    """Returns the relative prediction difference of every pair of seeds, in a fixed order."""
    pairs = itertools.combinations(predictions, 2)
    found = [prediction_difference(a, b) for a, b in pairs]
    return [value for value in found if value is not None]


def pair_interval(values: Sequence[float], n_seeds: int, level: float = 0.95) -> Interval | None:
    """Interval of a mean over pairs of seeds, or None without a pair.

    The n (n - 1) / 2 pairs share seeds, so they are not independent. The spread of the mean is
    taken by the jackknife over seeds: the mean is computed again without each seed in turn.

    Args:
        values: One value per pair, in the order of ``itertools.combinations``.
        n_seeds: Number of seeds; fewer than 3 give no interval.
        level: Coverage.
    """
    if not values:
        return None
    mean = float(np.mean(values))
    if n_seeds < 3:
        return Interval(mean)
    pairs = list(itertools.combinations(range(n_seeds), 2))
    without: list[Any] = [
        np.mean([v for v, pair in zip(values, pairs, strict=True) if seed not in pair])
        for seed in range(n_seeds)
    ]
    spread = np.sum((np.asarray(without) - np.mean(without)) ** 2)
    error = math.sqrt(float(spread) * (n_seeds - 1) / n_seeds)
    return Interval.of(mean, error, n_seeds - 1, level)
