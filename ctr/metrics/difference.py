"""How far the predictions of two trainings differ on the same examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ctr.errors import CtrError


def prediction_difference(
    prob_a: ArrayLike, prob_b: ArrayLike, weight: ArrayLike | None = None
) -> float | None:
    """Relative prediction difference: mean of |a - b| / ((a + b) / 2), in [0, 2].

    Zero for identical predictions; a model off by the factor c everywhere gives
    2 |c - 1| / (c + 1). A pair of zeros differs by zero.

    Paper: On the Factory Floor: ML Engineering for Industrial-Scale Ads Recommendation Models,
    arXiv:2209.05310, section 5.

    Args:
        prob_a: float[n], predictions of the first model.
        prob_b: float[n], predictions of the second, same examples in the same order.
        weight: float[n]; None weighs every example alike.

    Returns:
        The weighted mean, or None when there is no weight.

    Raises:
        CtrError: the arrays are not equally long.
    """
    a, b = np.asarray(prob_a, dtype=np.float64), np.asarray(prob_b, dtype=np.float64)
    w = np.ones(len(a)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not len(a) == len(b) == len(w):
        raise CtrError(
            f"prediction difference: received {len(a)} and {len(b)} predictions and {len(w)} "
            "weights. Compare two runs over the same examples."
        )
    total = w.sum()
    if total <= 0:
        return None
    mean = 0.5 * (a + b)
    relative = np.divide(np.abs(a - b), mean, out=np.zeros_like(mean), where=mean > 0)
    return float(np.dot(w, relative) / total)
