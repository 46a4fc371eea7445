"""The baseline every model must beat: the mean of the labels seen so far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def running_mean(
    labels: NDArray[np.float64], weights: NDArray[np.float64], batch: int, prior: float = 1.0
) -> NDArray[np.float64]:
    """Predicts the weighted mean of all labels before the row's batch.

    Predicting row by row would leak: among the rows of one page, the mean falls after each
    missing click.

    Args:
        labels: float64[n] in {0, 1}, in stream order.
        weights: float64[n].
        batch: Rows that share one prediction.
        prior: Weight of an imagined start at one half.

    Returns:
        Probabilities, float64[n].
    """
    starts = np.arange(0, len(labels), batch)
    clicks = np.concatenate([[0.0], np.cumsum(np.add.reduceat(labels * weights, starts))[:-1]])
    shown = np.concatenate([[0.0], np.cumsum(np.add.reduceat(weights, starts))[:-1]])
    means = (clicks + 0.5 * prior) / (shown + prior)
    return np.repeat(means, np.diff(np.append(starts, len(labels))))
