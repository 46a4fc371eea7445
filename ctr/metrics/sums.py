"""Mergeable sums from which log loss, normalized entropy, AUC and calibration follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.metrics.grid import N_BINS, histogram_auc
from ctr.metrics.intervals import binary_entropy, calibration_buckets, calibration_interval
from ctr.metrics.rows import ScoredRows, score_rows

#: Rows of ``MetricSums.cells``.
NEGATIVE, POSITIVE, PROB, SQUARED_WEIGHT = range(4)


def add_in_order(total: float, values: NDArray[np.float64]) -> float:
    """Adds ``values`` one after another, so that the result does not depend on the chunking."""
    return float(np.cumsum(np.concatenate(([total], values)))[-1])


@dataclass
class MetricSums:
    """Sums over a set of examples; two sets merge by adding.

    Every row is added in order, cell by cell: cutting a stream of rows into other chunks gives
    the same bits. Merging is commutative, and associative up to float64 rounding.

    Attributes:
        examples: Rows with a known label and a positive weight.
        loss: Weighted log loss, nats.
        variance: Sum of (w (y - p))^2, the noise of the weighted sum of y - p.
        cells: float64[4, N_BINS] over the log-odds grid: weight of label 0, weight of label 1,
            weight x prob, weight^2.
    """

    examples: int
    loss: float
    variance: float
    cells: NDArray[np.float64]

    @classmethod
    def empty(cls) -> MetricSums:
        """Returns sums over no examples."""
        return cls(0, 0.0, 0.0, np.zeros((4, N_BINS)))

    def add(self, prob: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Adds examples.

        Args:
            prob: float[n] predicted probabilities.
            label: n values 0 or 1; -1 and NaN mean unknown, and the row is ignored.
            weight: float[n]; rows of weight 0 are ignored. None means 1.

        Raises:
            CtrError: a prediction, label or weight is out of its range.
        """
        self.add_rows(score_rows(prob, label, weight))

    def add_rows(self, rows: ScoredRows) -> None:
        """Adds examples whose per-row quantities are already there."""
        flat = self.cells.reshape(-1)
        np.add.at(flat, rows.label * N_BINS + rows.bin, rows.weight)
        np.add.at(self.cells[PROB], rows.bin, rows.weight * rows.prob)
        np.add.at(self.cells[SQUARED_WEIGHT], rows.bin, rows.weight * rows.weight)
        self.examples += len(rows)
        self.loss = add_in_order(self.loss, rows.weight * rows.loss)
        residual = rows.weight * (rows.label - rows.prob)
        self.variance = add_in_order(self.variance, residual * residual)

    @staticmethod
    def merge(a: MetricSums, b: MetricSums) -> MetricSums:
        """Returns the sums over the examples of both; neither argument changes."""
        return MetricSums(
            a.examples + b.examples, a.loss + b.loss, a.variance + b.variance, a.cells + b.cells
        )

    def values(self) -> dict[str, Any]:
        """Returns the metrics by name; None where undefined (no rows, or one class only).

        ``calibration`` is sum(w p) / sum(w y), with a 95 % interval; ``bias`` is
        sum(w (y - p)) / sum(w y); ``normalized_entropy`` is the log loss over the entropy of the
        base rate; ``effective_examples`` is sum(w)^2 / sum(w^2), the number of
        equally weighted rows that would say as much.
        """
        totals = self.cells.sum(axis=1)
        values = ratio_values(
            examples=self.examples,
            weight=float(totals[NEGATIVE] + totals[POSITIVE]),
            positive=float(totals[POSITIVE]),
            prob=float(totals[PROB]),
            loss=self.loss,
            variance=self.variance,
        )
        values["auc"] = histogram_auc(self.cells[NEGATIVE], self.cells[POSITIVE])
        values["effective_examples"] = effective_size(values["weight"], totals[SQUARED_WEIGHT])
        return values

    def calibration_buckets(self, n_buckets: int = 10) -> list[dict[str, float]]:
        """Returns calibration by predicted probability; see :func:`calibration_buckets`."""
        return calibration_buckets(self.cells, n_buckets)

    def sparse(self) -> SparseSums:
        """Returns a compact copy that keeps only the occupied bins."""
        bins = np.flatnonzero(self.cells[NEGATIVE] + self.cells[POSITIVE])
        return SparseSums(
            self.examples, self.loss, self.variance, bins.astype(np.uint16), self.cells[:, bins]
        )


@dataclass(frozen=True)
class SparseSums:
    """:class:`MetricSums` without the empty bins, for the many closed windows.

    Attributes:
        examples: As in MetricSums.
        loss: As in MetricSums.
        variance: As in MetricSums.
        bins: uint16[k], the occupied bins, ascending.
        cells: float64[4, k].
    """

    examples: int
    loss: float
    variance: float
    bins: NDArray[np.uint16]
    cells: NDArray[np.float64]

    def add_to(self, sums: MetricSums) -> None:
        """Adds these sums to ``sums`` in place."""
        sums.examples += self.examples
        sums.loss += self.loss
        sums.variance += self.variance
        sums.cells[:, self.bins] += self.cells

    def dense(self) -> MetricSums:
        """Returns the same sums on the full grid."""
        sums = MetricSums.empty()
        self.add_to(sums)
        return sums


def effective_size(weight: float, squared_weight: float) -> float:
    """Returns sum(w)^2 / sum(w^2), 0 without rows."""
    return weight * weight / float(squared_weight) if squared_weight > 0 else 0.0


def ratio_values(
    examples: int, weight: float, positive: float, prob: float, loss: float, variance: float
) -> dict[str, Any]:
    """Returns every metric that needs only totals; ``auc`` is None.

    Args:
        examples: Number of rows.
        weight: Sum of w.
        positive: Sum of w y.
        prob: Sum of w p.
        loss: Sum of w times log loss.
        variance: Sum of (w (y - p))^2.
    """
    some, clicks = weight > 0, positive > 0
    base_rate = positive / weight if some else None
    entropy = binary_entropy(base_rate) if base_rate is not None else 0.0
    low, high = calibration_interval(prob, positive, variance)
    return {
        "examples": int(examples),
        "weight": weight,
        "log_loss": loss / weight if some else None,
        "normalized_entropy": loss / weight / entropy if entropy > 0 else None,
        "auc": None,
        "calibration": prob / positive if clicks else None,
        "calibration_low": low,
        "calibration_high": high,
        "bias": (positive - prob) / positive if clicks else None,
        "base_rate": base_rate,
        "mean_prob": prob / weight if some else None,
    }
