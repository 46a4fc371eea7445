"""What only a simulated world allows: predictions against the true probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.baseline import running_mean
from ctr.metrics import ProgressiveMetrics
from ctr.report.content import metrics_section

#: Rows per call of the metrics and per prediction of the running mean.
_ROWS = 4096


def truth_section(run_dir: Path, truth: Path, label: str, window_us: int) -> dict[str, Any]:
    """Returns the ``truth`` part of a report.

    Args:
        run_dir: A run with ``predictions.parquet``.
        truth: The simulator's ``truth.parquet``.
        label: The label that was learned.
        window_us: Length of a metric window.

    Returns:
        Bayes log loss (nats), the model's regret against it over the whole stream and over its
        second half, predicted over true probability, and the metrics of the true probabilities.
    """
    predictions = _scored(run_dir)
    true = _true_probs(predictions, pq.read_table(truth), label)
    prob = predictions["prob"].to_numpy().astype(np.float64)
    half = len(prob) // 2
    regret = expected_log_loss(true, prob) - expected_log_loss(true, true)
    return {
        "bayes_log_loss": float(expected_log_loss(true, true).mean()),
        "regret": float(regret.mean()),
        "regret_second_half": float(regret[half:].mean()),
        "predicted_over_true": float(prob.sum() / true.sum()),
        "predicted_over_true_second_half": float(prob[half:].sum() / true[half:].sum()),
        "mean_absolute_error_second_half": float(np.abs(prob - true)[half:].mean()),
        "metrics": _metrics(predictions, true, window_us),
    }


def running_mean_section(run_dir: Path, window_us: int) -> dict[str, Any]:
    """Returns the running-mean baseline on the examples of a run, as a report's baseline."""
    predictions = _scored(run_dir)
    labels = predictions["label"].to_numpy().astype(np.float64)
    weights = predictions["weight"].to_numpy().astype(np.float64)
    prob = running_mean(labels, weights, _ROWS)
    return {"name": "running mean", "metrics": _metrics(predictions, prob, window_us)}


def expected_log_loss(true: NDArray[np.float64], prob: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the log loss to expect from ``prob`` where ``true`` is the click probability."""
    prob = np.clip(prob, 1e-7, 1.0 - 1e-7)
    return -(true * np.log(prob) + (1.0 - true) * np.log1p(-prob))


def _scored(run_dir: Path) -> pa.Table:
    """Returns the predictions of examples; corrections, which tell of them again, left out."""
    predictions = pq.read_table(run_dir / "predictions.parquet")
    return predictions.filter(pc.is_valid(predictions["label"]))


def _true_probs(predictions: pa.Table, truth: pa.Table, label: str) -> NDArray[np.float64]:
    places = pc.index_in(predictions["example_id"], truth["example_id"])
    return truth[f"p_{label}"].take(places).to_numpy().astype(np.float64)


def _metrics(predictions: pa.Table, prob: NDArray[np.float64], window_us: int) -> dict[str, Any]:
    metrics = ProgressiveMetrics((), window_us, query_auc=None)
    times = predictions["event_time"].cast(pa.int64()).to_numpy()
    labels = predictions["label"].fill_null(-1).to_numpy()
    weights = predictions["weight"].to_numpy()
    for at in range(0, len(prob), _ROWS):
        part = slice(at, at + _ROWS)
        metrics.update(times[part], prob[part], labels[part], weights[part])
    return metrics_section(metrics)
