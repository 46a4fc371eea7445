"""Per-row quantities that every accumulator shares, computed once per call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.errors import CtrError
from ctr.metrics.grid import P_MIN, bin_of_logit


@dataclass(frozen=True)
class ScoredRows:
    """Examples with a known label and a positive weight.

    Attributes:
        kept: int64[n] positions in the caller's arrays, or None when every row was kept.
        prob: float64[n].
        label: int64[n], 0 or 1.
        weight: float64[n].
        loss: float64[n], unweighted log loss in nats.
        bin: int64[n], cell of the log-odds grid.
    """

    kept: NDArray[np.int64] | None
    prob: NDArray[np.float64]
    label: NDArray[np.int64]
    weight: NDArray[np.float64]
    loss: NDArray[np.float64]
    bin: NDArray[np.int64]

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.prob)

    def take(self, rows: NDArray[np.int64] | slice) -> ScoredRows:
        """Returns some of the rows; ``kept`` is dropped."""
        return ScoredRows(
            None,
            self.prob[rows],
            self.label[rows],
            self.weight[rows],
            self.loss[rows],
            self.bin[rows],
        )


def score_rows(prob: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> ScoredRows:
    """Checks predictions and labels and computes loss and grid cell of each row.

    Args:
        prob: float[n] predicted probabilities.
        label: n values 0 or 1; -1 and NaN mean unknown, and the row is ignored.
        weight: float[n], non-negative; rows of weight 0 are ignored. None means 1.

    Raises:
        CtrError: a kept prediction is outside [0, 1] or not a number, a label is none of 0, 1,
            -1 and NaN, a weight is negative or not finite, or the lengths differ.
    """
    p = np.asarray(prob, dtype=np.float64)
    y = np.asarray(label)
    w = np.ones(len(p)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not len(p) == len(y) == len(w):
        raise CtrError(
            f"metrics: prob, label and weight must be equally long, received {len(p)}, {len(y)} "
            f"and {len(w)} rows."
        )
    known = (y >= 0) & (w != 0)
    kept = None
    if not known.all():
        kept = np.flatnonzero(known)
        ignorable = np.isnan(y) | (y == -1) | (w == 0)
        if not (known | ignorable).all():
            _refuse("label", y, known | ignorable, "0, 1, -1 or NaN", "Check the label column.")
        p, y, w = p[kept], y[kept], w[kept]
    positive = y == 1
    if not (positive | (y == 0)).all():
        _refuse("label", y, positive | (y == 0), "0, 1, -1 or NaN", "Check the label column.")
    in_range = (p >= 0) & (p <= 1)
    if not in_range.all():
        hint = "The model diverged if this is NaN: lower the learning rate."
        _refuse("prediction", p, in_range, "a probability", hint)
    usable = (w > 0) & (w < np.inf)
    if not usable.all():
        _refuse("weight", w, usable, "a finite number >= 0", "Check the weight column.")
    clipped = np.clip(p, P_MIN, 1 - P_MIN)
    log_p, log_q = np.log(clipped), np.log(1 - clipped)
    loss = -np.where(positive, log_p, log_q)
    return ScoredRows(kept, p, positive.astype(np.int64), w, loss, bin_of_logit(log_p - log_q))


def _refuse(
    what: str, values: NDArray[np.generic], fine: NDArray[np.bool_], expected: str, hint: str
) -> None:
    row = int(np.flatnonzero(~fine)[0])
    raise CtrError(
        f"metrics: {what} in row {row:,} of the batch: expected {expected}, "
        f"received {values[row]}. {hint}"
    )
