"""Calibration by predicted probability, and confidence intervals for calibration."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ctr.metrics.grid import edge_prob

#: Two-sided 95 % quantile of the standard normal.
Z95 = 1.959963984540054


def binary_entropy(rate: float) -> float:
    """Returns the entropy in nats of one Bernoulli draw with the given rate."""
    if not 0.0 < rate < 1.0:
        return 0.0
    return -rate * math.log(rate) - (1 - rate) * math.log1p(-rate)


def calibration_interval(
    prob: float, positive: float, variance: float
) -> tuple[float | None, float | None]:
    """95 % interval of the calibration ratio sum(w p) / sum(w y).

    Predictions are made before their label is seen, so w (y - p) of a calibrated model is a
    martingale difference whose summed squares estimate the variance of sum(w y): no independence
    between examples is assumed. The interval is symmetric in the logarithm of the ratio.

    Args:
        prob: Sum of w p.
        positive: Sum of w y.
        variance: Sum of (w (y - p))^2.
    """
    if positive <= 0 or prob <= 0:
        return None, None
    ratio = prob / positive
    spread = math.exp(min(Z95 * math.sqrt(variance) / positive, 100.0))
    return ratio / spread, ratio * spread


def wilson_interval(rate: float, n: float) -> tuple[float, float]:
    """95 % Wilson score interval of a rate observed in ``n`` (effective) examples."""
    z2 = Z95 * Z95
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration_buckets(cells: NDArray[np.float64], n_buckets: int = 10) -> list[dict[str, float]]:
    """Observed rate by predicted probability, in buckets of about equal weight.

    The interval of the observed rate is Wilson's with the effective number of examples
    (sum w)^2 / sum w^2, which is the plain count when all weights are equal.

    Args:
        cells: float64[4, n_bins]: weight of label 0, of label 1, weight x prob, weight^2.
        n_buckets: Buckets wanted; fewer come out when one grid cell outweighs a bucket.

    Returns:
        One dict per bucket, ascending: ``prob_low``, ``prob_high`` (edges), ``mean_prob``,
        ``rate``, ``rate_low``, ``rate_high``, ``weight``, ``effective_examples``.
    """
    weight = cells[0] + cells[1]
    total = weight.sum()
    if total <= 0:
        return []
    middle = np.cumsum(weight) - 0.5 * weight
    bucket = np.minimum((middle / total * n_buckets).astype(np.int64), n_buckets - 1)
    occupied = np.flatnonzero(weight)
    buckets = []
    for number in np.unique(bucket[occupied]):
        bins = occupied[bucket[occupied] == number]
        part = cells[:, bins].sum(axis=1)
        mass = float(part[0] + part[1])
        rate, n = float(part[1]) / mass, mass * mass / float(part[3])
        low, high = wilson_interval(rate, n)
        buckets.append(
            {
                "prob_low": edge_prob(int(bins[0])),
                "prob_high": edge_prob(int(bins[-1]) + 1),
                "mean_prob": float(part[2]) / mass,
                "rate": rate,
                "rate_low": low,
                "rate_high": high,
                "weight": mass,
                "effective_examples": n,
            }
        )
    return buckets
