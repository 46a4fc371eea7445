"""Measurements of a version for the gate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.metrics import ProgressiveMetrics
from ctr.metrics.difference import prediction_difference
from ctr.schema import Schema
from serving.parity import check_rows
from serving.predictor import Predictor

_CALLS = 100


@dataclass(frozen=True)
class Recent:
    """The newest examples of the data.

    Attributes:
        schema: Their schema.
        rows: Features, labels, weights and slices.
        newest_us: Event time of the very last one, microseconds since the epoch.
    """

    schema: Schema
    rows: pa.Table
    newest_us: int


def progressive(manifest: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns what the manifest says of the whole run; a damaged entry is undefined."""
    lifetime = manifest.get("metrics", {}).get("lifetime", {})
    return {
        "examples": manifest.get("examples"),
        "normalized_entropy": lifetime.get("normalized_entropy"),
        "auc": lifetime.get("auc"),
        "calibration_error": _error(lifetime.get("calibration")),
    }


def progressive_slices(
    manifest: Mapping[str, Any], slice_examples: int
) -> tuple[float | None, str]:
    """Returns the error of the worst slice over the whole run, and which one that is."""
    slices = manifest.get("metrics", {}).get("slices")
    return (None, "") if slices is None else _worst_slice(slices, 1.0, slice_examples)


def score_difference(predictor: Predictor) -> float:
    """Returns how far the model is from the check scores of its manifest; NaN if it has none."""
    want = np.array(predictor.manifest.get("check_scores", []), np.float64)
    served = predictor.predict(check_rows(predictor.encoder)).astype(np.float64)
    if want.size != served.size:
        return float("nan")
    return float(np.max(np.abs(served.reshape(want.shape) - want)))


def scores(predictor: Predictor, recent: Recent) -> NDArray[np.float64]:
    """Returns probabilities float64[N, T] of the recent examples."""
    found = [
        predictor.predict(part).astype(np.float64).reshape(part.num_rows, -1)
        for part in recent.rows.to_batches(max_chunksize=4096)
    ]
    return np.concatenate(found)


def of_scores(
    prob: NDArray[np.float64], recent: Recent, label: str, slice_examples: int
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Returns measurements of scores float64[N, T], and notes on them."""
    lost = int(np.count_nonzero(~np.isfinite(prob)))
    if lost:
        return {"not_finite": lost}, {}
    metrics = _metrics(prob[:, 0], recent, label)
    ratio = metrics.lifetime()["calibration"]
    worst, where = _worst_slice(metrics.slices(), ratio or 1.0, slice_examples)
    found: dict[str, float | None] = {
        "not_finite": 0,
        "prob_std": float(prob[:, 0].std()),
        "recent_calibration_error": _error(ratio),
        "slice_calibration_error": worst,
    }
    return found, {"slice_calibration_error": where}


def of_change(
    prob: NDArray[np.float64], base: NDArray[np.float64], recent: Recent, label: str
) -> dict[str, float | None]:
    """Returns measurements of scores against a baseline's, both float64[N, T]."""
    new, old = (_metrics(values[:, 0], recent, label).lifetime() for values in (prob, base))
    undefined = new["log_loss"] is None or not old["log_loss"]
    ranked = new["auc"] is not None and old["auc"] is not None
    return {
        "log_loss_increase": None if undefined else new["log_loss"] / old["log_loss"] - 1.0,
        "auc_decrease": old["auc"] - new["auc"] if ranked else None,
        "prediction_difference": prediction_difference(prob.ravel(), base.ravel()),
    }


def cost(predictor: Predictor) -> dict[str, float | None]:
    """Returns latency of single rows and size on disk."""
    row = check_rows(predictor.encoder).slice(0, 1)
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        predictor.predict(row)
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "latency_ms_p50": float(np.quantile(times, 0.5)),
        "latency_ms_p99": float(np.quantile(times, 0.99)),
        "size_mb": _size(predictor.folder) / 1e6,
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _metrics(prob: NDArray[np.float64], recent: Recent, label: str) -> ProgressiveMetrics:
    names = tuple(name for name in recent.schema.slices if name in recent.rows.column_names)
    metrics = ProgressiveMetrics(names, window_us=1 << 60, query_auc=None)
    labels = recent.rows[label].fill_null(-1).to_numpy()
    weights = recent.rows["weight"].to_numpy() if "weight" in recent.rows.column_names else None
    slices = {name: recent.rows[name] for name in names}
    metrics.update(np.zeros(len(prob), np.int64), prob, labels, weights, None, slices)
    return metrics


def _error(ratio: float | None) -> float | None:
    return max(ratio, 1.0 / ratio) - 1.0 if ratio else None


def _worst_slice(
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]], overall: float, slice_examples: int
) -> tuple[float, str]:
    """Returns the largest error against ``overall`` that an interval proves, and its slice."""
    worst, where = 0.0, ""
    for feature, values in slices.items():
        for value, found in values.items():
            low, high = found["calibration_low"], found["calibration_high"]
            if found["examples"] < slice_examples or low is None:
                continue
            error = max(low / overall - 1.0, overall / high - 1.0)
            if error > worst:
                ratio = found["calibration"]
                worst, where = error, f"{feature} = {value}: predicted / clicked {ratio:.3f}"
    return worst, where
