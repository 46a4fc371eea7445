"""What a replay's predictions were worth: sums per time bucket from which all metrics follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Block
from ctr.harness.stats import Sums
from ctr.metrics.grid import N_BINS
from ctr.metrics.query_auc import query_sums
from ctr.metrics.rows import score_rows
from ctr.metrics.slices import SliceValues

#: Cells of the score histogram; each is 1/64 of a logit wide.
CELLS = 2048
#: Slice values told apart per feature.
MAX_SLICE_VALUES = 50
_BUCKETS = 60


@dataclass(frozen=True)
class Observed:
    """What is known about the scored examples besides their predictions.

    Attributes:
        time_us: int64[n], event time.
        labels: float32[n, T]; -1 means unknown.
        weights: float32[n].
        query: uint64[n], or None.
        slices: int64[n] slice value by feature.
        slice_names: Names of these values by feature.
    """

    time_us: NDArray[np.int64]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    query: NDArray[np.uint64] | None
    slices: Mapping[str, NDArray[np.int64]]
    slice_names: Mapping[str, tuple[str, ...]]


class Observer:
    """Collects :class:`Observed` from the blocks of a stream, leaving out the burn-in."""

    def __init__(self, slices: Sequence[str], burn_in: int) -> None:
        self._skip = burn_in
        self._parts: list[tuple[Any, ...]] = []
        self._values = {name: SliceValues(MAX_SLICE_VALUES) for name in slices}
        self._codes: dict[str, list[NDArray[np.int64]]] = {name: [] for name in slices}

    def add(self, block: Block) -> None:
        """Adds the next rows of the stream."""
        n = len(block.time_us)
        skip = min(self._skip, n)
        self._skip -= skip
        if skip == n:
            return
        kept = block.cut(skip, n)
        for name, values in self._values.items():
            self._codes[name].append(values.encode(kept.frame.column(name)))
        self._parts.append((kept.time_us, kept.labels, kept.weights, kept.query))

    def observed(self) -> Observed:
        """Returns everything collected."""
        time_us, labels, weights, queries = zip(*self._parts, strict=True)
        return Observed(
            np.concatenate(time_us),
            np.concatenate(labels),
            np.concatenate(weights),
            None if queries[0] is None else np.concatenate(queries),
            {name: np.concatenate(codes) for name, codes in self._codes.items()},
            {name: values.names for name, values in self._values.items()},
        )


def bucket_edges(start_us: int, end_us: int, window_s: float) -> tuple[int, int]:
    """Returns (start, length) of the time buckets, microseconds; about 60 if no length is given."""
    length = round(window_s * 1e6) or -(-(end_us - start_us + 1) // _BUCKETS)
    return start_us, max(1, length)


def bucket_sums(
    observed: Observed, prob: NDArray[np.float32], task: int, window_s: float
) -> dict[str, NDArray[np.float64]]:
    """Returns the sums of one label per time bucket, from which :data:`METRICS` are computed.

    Args:
        observed: The scored examples.
        prob: float32[n], their predictions.
        task: Column of the label.
        window_s: Length of a bucket in seconds; 0 makes about 60.

    Returns:
        ``scalar`` float64[N, 4] (weight, positive weight, sum of w p, sum of w loss), ``query``
        float64[N, 2] (per-query AUC and its weight, in the bucket of the query's first row),
        ``cells`` float64[N, 2, CELLS] (weight by label and score) and ``slices`` float64[N, V, 3]
        (weight, positive weight, sum of w p).

    Raises:
        CtrError: a prediction is no probability.
    """
    time = observed.time_us
    start, length = bucket_edges(int(time[0]), int(time[-1]), window_s)
    bucket = (time - start) // length
    n = int(bucket[-1]) + 1
    rows = score_rows(prob, observed.labels[:, task], observed.weights)
    kept = slice(None) if rows.kept is None else rows.kept
    bucket = bucket[kept]
    w, y, p = rows.weight, rows.label, rows.prob
    columns = (w, w * y, w * p, w * rows.loss)
    scalar: NDArray[Any] = np.stack([np.bincount(bucket, c, minlength=n) for c in columns], axis=1)
    cell = (bucket * 2 + y) * CELLS + rows.bin * CELLS // N_BINS
    cells: NDArray[Any] = np.bincount(cell, w, minlength=n * 2 * CELLS).reshape(n, 2, CELLS)
    query = np.zeros((n, 2))
    if observed.query is not None:
        ids = observed.query[kept]
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        query = query_sums(ids, rows, bucket[first][inverse], n)
    width = MAX_SLICE_VALUES + 1
    parts = []
    for codes in observed.slices.values():
        place = bucket * width + codes[kept]
        sums = [np.bincount(place, c, minlength=n * width) for c in columns[:3]]
        parts.append(np.stack(sums, axis=1).reshape(n, width, 3))
    slices: NDArray[Any] = np.concatenate(parts, axis=1) if parts else np.zeros((n, 0, 3))
    return {"scalar": scalar, "query": query, "cells": cells, "slices": slices}


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _log_loss(sums: Sums) -> NDArray[np.float64]:
    return _ratio(sums["scalar"][:, 3], sums["scalar"][:, 0])


def _normalized_entropy(sums: Sums) -> NDArray[np.float64]:
    rate = _ratio(sums["scalar"][:, 1], sums["scalar"][:, 0])
    inside = np.where((rate > 0) & (rate < 1), rate, 0.5)
    entropy = -inside * np.log(inside) - (1 - inside) * np.log1p(-inside)
    return np.where((rate > 0) & (rate < 1), _log_loss(sums) / entropy, np.nan)


def _auc(sums: Sums) -> NDArray[np.float64]:
    negative, positive = sums["cells"][:, 0], sums["cells"][:, 1]
    below = np.cumsum(negative, axis=1) - 0.5 * negative
    pairs = negative.sum(axis=1) * positive.sum(axis=1)
    return _ratio(np.sum(positive * below, axis=1), pairs)


def _per_query_auc(sums: Sums) -> NDArray[np.float64]:
    return _ratio(sums["query"][:, 0], sums["query"][:, 1])


def _calibration(sums: Sums) -> NDArray[np.float64]:
    return _ratio(sums["scalar"][:, 2], sums["scalar"][:, 1])


def _calibration_error(sums: Sums) -> NDArray[np.float64]:
    return np.abs(np.log(_calibration(sums)))


def _slice_calibration_error(sums: Sums) -> NDArray[np.float64]:
    weight, positive, prob = np.moveaxis(sums["slices"], 2, 0)
    defined = (positive > 0) & (prob > 0)
    ratio = np.divide(prob, positive, out=np.ones_like(prob), where=defined)
    mass = np.where(defined, weight, 0.0)
    return _ratio(np.sum(mass * np.abs(np.log(ratio)), axis=1), mass.sum(axis=1))


#: Metrics by name, each a function of sums; what is undefined is NaN.
METRICS = {
    "log_loss": _log_loss,
    "normalized_entropy": _normalized_entropy,
    "auc": _auc,
    "per_query_auc": _per_query_auc,
    "calibration": _calibration,
    "calibration_error": _calibration_error,
    "slice_calibration_error": _slice_calibration_error,
}


def values(sums: Sums) -> dict[str, float]:
    """Returns every metric over all buckets; NaN where it is undefined."""
    total = {key: part.sum(axis=0, keepdims=True) for key, part in sums.items()}
    return {name: float(metric(total)[0]) for name, metric in METRICS.items()}
