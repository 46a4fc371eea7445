import json
import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctr.errors import CtrError
from ctr.metrics import MetricSums
from ctr.metrics.grid import N_BINS, bin_of_logit, edge_prob


def stream(n, seed=0, base=-2.0, spread=1.0):
    rng = np.random.default_rng(seed)
    logit = base + spread * rng.standard_normal(n)
    prob = 1 / (1 + np.exp(-logit))
    return prob, (rng.random(n) < prob).astype(np.int8), rng.choice([0.5, 1.0, 2.0, 7.0], n)


@pytest.fixture(scope="module")
def filled():
    prob, label, weight = stream(50_000)
    sums = MetricSums.empty()
    for chunk in np.array_split(np.arange(len(prob)), 13):
        sums.add(prob[chunk], label[chunk], weight[chunk])
    return prob, label, weight, sums.values()


def test_log_loss_equals_sklearn(filled):
    prob, label, weight, values = filled
    assert values["log_loss"] == pytest.approx(
        log_loss(label, prob, sample_weight=weight), rel=1e-12
    )


def test_auc_is_close_to_sklearn(filled):
    prob, label, weight, values = filled
    exact = roc_auc_score(label, prob, sample_weight=weight)
    assert abs(values["auc"] - exact) < 1e-4


def test_ratios_equal_plain_recomputation(filled):
    prob, label, weight, values = filled
    rate = np.average(label, weights=weight)
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    assert values["examples"] == len(prob)
    assert values["weight"] == pytest.approx(weight.sum(), rel=1e-12)
    assert values["base_rate"] == pytest.approx(rate, rel=1e-12)
    assert values["mean_prob"] == pytest.approx(np.average(prob, weights=weight), rel=1e-12)
    size = weight.sum() ** 2 / (weight**2).sum()
    assert values["effective_examples"] == pytest.approx(size, rel=1e-12)
    assert values["calibration"] == pytest.approx((weight @ prob) / (weight @ label), rel=1e-12)
    assert values["bias"] == pytest.approx(
        (weight @ (label - prob)) / (weight @ label), rel=1e-9, abs=1e-12
    )
    assert values["normalized_entropy"] == pytest.approx(
        log_loss(label, prob, sample_weight=weight) / entropy, rel=1e-12
    )


def test_calibration_interval_covers_one_for_a_calibrated_model_about_95_percent():
    covered = 0
    for seed in range(200):
        sums = MetricSums.empty()
        sums.add(*stream(2_000, seed))
        values = sums.values()
        covered += values["calibration_low"] <= 1 <= values["calibration_high"]
    assert 180 <= covered <= 199


def test_calibration_interval_excludes_one_for_a_model_off_by_a_quarter():
    prob, label, weight = stream(50_000)
    sums = MetricSums.empty()
    sums.add(0.75 * prob, label, weight)
    assert sums.values()["calibration_high"] < 0.85


def test_unknown_labels_and_zero_weights_are_ignored():
    prob, label, weight = stream(1_000)
    expected = MetricSums.empty()
    expected.add(prob, label, weight)
    padded = MetricSums.empty()
    padded.add(
        np.concatenate([prob, [0.5, np.nan, 0.9]]),
        np.concatenate([label.astype(float), [np.nan, -1, 1]]),
        np.concatenate([weight, [1, 1, 0]]),
    )
    assert padded.values() == expected.values()


@pytest.mark.parametrize("label", [[], [0, 0], [1, 1]])
def test_undefined_values_are_none_and_json_null(label):
    sums = MetricSums.empty()
    sums.add([0.2] * len(label), label)
    values = json.loads(json.dumps(sums.values(), allow_nan=False))
    assert values["auc"] is None
    assert values["normalized_entropy"] is None
    assert (values["log_loss"] is None) == (not label)
    assert (values["calibration"] is None) == (1 not in label)


def test_certain_predictions_cost_a_bounded_loss():
    sums = MetricSums.empty()
    sums.add([0.0, 1.0], [1, 0])
    assert sums.values()["log_loss"] == pytest.approx(-math.log(1e-7), rel=1e-6)
    assert sums.values()["auc"] == 0.0


@pytest.mark.parametrize(
    ("prob", "label", "weight", "word"),
    [
        ([0.1, np.nan], [0, 1], None, "diverged"),
        ([0.1, 1.5], [0, 1], None, "prediction in row 1"),
        ([0.1, 0.2], [0, 2], None, "label in row 1"),
        ([0.1, 0.2], [0, -3], None, "label in row 1"),
        ([0.1, 0.2], [0, 1], [1, -1], "weight in row 1"),
        ([0.1, 0.2], [0, 1], [np.inf, 1], "weight in row 0"),
        ([0.1, 0.2], [0], None, "equally long"),
    ],
)
def test_bad_rows_are_refused_with_their_place(prob, label, weight, word):
    sums = MetricSums.empty()
    with pytest.raises(CtrError, match=word):
        sums.add(prob, label, weight)
    assert sums.examples == 0


def test_grid_separates_one_in_a_million_from_its_neighbours():
    logit = np.log(np.array([0.99e-6, 1e-6, 1.01e-6]))
    assert len(set(bin_of_logit(logit))) == 3
    assert bin_of_logit(np.array([-99.0, 99.0])).tolist() == [0, N_BINS - 1]
    assert (edge_prob(0), edge_prob(N_BINS)) == (0.0, 1.0)
    assert edge_prob(int(bin_of_logit(np.log(np.array([1e-6 / (1 - 1e-6)])))[0])) == pytest.approx(
        1e-6, rel=0.004
    )


def test_calibration_buckets_recover_rates_and_cover_them():
    prob, label, weight = stream(100_000, seed=3)
    sums = MetricSums.empty()
    sums.add(prob, label, weight)
    buckets = sums.calibration_buckets(10)
    assert len(buckets) == 10
    assert sum(b["weight"] for b in buckets) == pytest.approx(weight.sum())
    inside = 0
    for bucket in buckets:
        rows = (prob >= bucket["prob_low"]) & (prob < bucket["prob_high"])
        assert bucket["weight"] == pytest.approx(0.1 * weight.sum(), rel=0.05)
        assert bucket["rate"] == pytest.approx(np.average(label[rows], weights=weight[rows]))
        assert bucket["mean_prob"] == pytest.approx(np.average(prob[rows], weights=weight[rows]))
        n = weight[rows].sum() ** 2 / (weight[rows] ** 2).sum()
        assert bucket["effective_examples"] == pytest.approx(n)
        inside += bucket["rate_low"] <= bucket["mean_prob"] <= bucket["rate_high"]
    assert inside >= 8


def test_calibration_buckets_of_nothing_and_of_one_score():
    sums = MetricSums.empty()
    assert sums.calibration_buckets() == []
    sums.add([0.25] * 40, [0, 0, 0, 1] * 10)
    (bucket,) = sums.calibration_buckets()
    assert bucket["rate"] == 0.25
    assert bucket["mean_prob"] == 0.25
    # Wilson's interval for 10 of 40.
    assert bucket["rate_low"] == pytest.approx(0.14187, abs=1e-5)
    assert bucket["rate_high"] == pytest.approx(0.40194, abs=1e-5)


@pytest.mark.parametrize(("rate", "share"), [(0.1, 0.63), (0.01, 0.12)])
def test_sampled_negatives_leave_as_many_effective_examples_as_their_weights_say(rate, share):
    # 8 % positives of weight 1, and the negatives at the rate with weight 1 / rate.
    n, positives = 100_000, 8_000
    kept = round(rate * (n - positives))
    weight = np.r_[np.ones(positives), np.full(kept, 1 / rate)]
    label = np.r_[np.ones(positives, int), np.zeros(kept, int)]
    sums = MetricSums.empty()
    assert sums.values()["effective_examples"] == 0.0
    sums.add(np.full(len(weight), 0.08), label, weight)
    found = sums.values()
    assert found["effective_examples"] / found["examples"] == pytest.approx(share, abs=0.01)
