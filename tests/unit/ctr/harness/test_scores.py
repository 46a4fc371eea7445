from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctr.harness.scores import CELLS, MAX_SLICE_VALUES, Observed, bucket_sums, values
from ctr.harness.stats import block_bootstrap
from ctr.metrics import QueryAuc
from ctr.metrics.rows import score_rows


@pytest.fixture(scope="module")
def scored() -> tuple[Observed, np.ndarray]:
    rng = np.random.default_rng(0)
    n = 6000
    prob = rng.beta(2, 8, n).astype(np.float32)
    labels = np.stack([rng.random(n) < prob, rng.random(n) < 0.5 * prob], axis=1)
    labels = labels.astype(np.float32)
    labels[::7, 1] = -1
    observed = Observed(
        np.arange(n) * 1_000_000,
        labels,
        rng.uniform(0.5, 2, n).astype(np.float32),
        (np.arange(n) // 5).astype(np.uint64),
        {"a": rng.integers(0, 3, n), "b": rng.integers(0, 2, n)},
        {"a": ("x", "y", "z"), "b": ("u", "v")},
    )
    return observed, prob


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("window_s", [0.0, 250.0])
def test_metrics_from_bucket_sums(
    scored: tuple[Observed, np.ndarray], task: int, window_s: float
) -> None:
    observed, prob = scored
    sums = bucket_sums(observed, prob, task, window_s)
    assert len(sums["scalar"]) == (60 if not window_s else 24)
    assert sums["cells"].shape[1:] == (2, CELLS)
    found = values(sums)
    known = observed.labels[:, task] >= 0
    y, p = observed.labels[known, task].astype(float), prob[known].astype(float)
    w = observed.weights[known].astype(float)
    assert found["log_loss"] == pytest.approx(log_loss(y, p, sample_weight=w), rel=1e-9)
    assert found["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=2e-5)
    assert found["calibration"] == pytest.approx((w * p).sum() / (w * y).sum(), rel=1e-9)
    rate = (w * y).sum() / w.sum()
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert found["normalized_entropy"] == pytest.approx(found["log_loss"] / entropy, rel=1e-9)
    exact = QueryAuc()
    exact.add(observed.query[known], score_rows(p, y, w), [])
    assert found["per_query_auc"] == pytest.approx(exact.value(), rel=1e-9)
    errors, weights = [], []
    for name in ("a", "b"):
        for code in range(3):
            mine = observed.slices[name][known] == code
            if mine.any():
                ratio = (w * p)[mine].sum() / (w * y)[mine].sum()
                errors.append(abs(np.log(ratio)))
                weights.append(w[mine].sum())
    expected = np.average(errors, weights=weights)
    assert found["slice_calibration_error"] == pytest.approx(expected, rel=1e-9)
    assert sums["slices"].shape[1] == 2 * (MAX_SLICE_VALUES + 1)


def test_a_query_belongs_to_the_bucket_of_its_first_row() -> None:
    observed = Observed(
        np.array([0, 10, 0, 10]) * 1_000_000,
        np.array([[1.0], [0.0], [1.0], [0.0]], np.float32),
        np.ones(4, np.float32),
        np.array([5, 5, 6, 6], np.uint64),
        {},
        {},
    )
    order = np.argsort(observed.time_us, kind="stable")
    sorted_rows = Observed(
        observed.time_us[order], observed.labels[order], observed.weights, observed.query[order],
        {}, {},
    )  # fmt: skip
    prob = np.array([0.9, 0.2, 0.1, 0.3], np.float32)[[0, 1, 2, 3]]
    sums = bucket_sums(sorted_rows, prob, 0, 5.0)
    assert sums["query"].tolist() == [[2.0, 4.0], [0.0, 0.0], [0.0, 0.0]]


def test_what_is_undefined_is_nan() -> None:
    observed = Observed(
        np.arange(4) * 1_000_000, np.zeros((4, 1), np.float32), np.ones(4, np.float32), None, {}, {}
    )
    found = values(bucket_sums(observed, np.full(4, 0.1, np.float32), 0, 0.0))
    assert found["log_loss"] == pytest.approx(-np.log(0.9))
    for name in ("auc", "per_query_auc", "calibration", "slice_calibration_error"):
        assert np.isnan(found[name])


def test_a_sharper_model_wins_in_every_metric(scored: tuple[Observed, np.ndarray]) -> None:
    observed, prob = scored
    rng = np.random.default_rng(1)
    blurred = 1 / (1 + np.exp(-(np.log(prob / (1 - prob)) + rng.normal(0, 0.7, len(prob)))))
    arm, base = bucket_sums(observed, prob, 0, 0), bucket_sums(observed, blurred, 0, 0)
    from ctr.harness.scores import METRICS

    for name, sign in (("log_loss", -1), ("auc", 1), ("per_query_auc", 1)):
        found = block_bootstrap(arm, base, METRICS[name], n_resamples=200)
        assert found.p is not None
        assert found.p < 0.01
        assert found.value * sign > 0
