import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from ctr.metrics import MetricSums, prediction_difference
from ctr.metrics.grid import N_BINS, histogram_auc

row = st.tuples(
    st.floats(1e-6, 1 - 1e-6), st.sampled_from([0, 1]), st.sampled_from([0.25, 1.0, 3.0])
)
some_rows = st.lists(row, max_size=30)


def sums_of(rows):
    sums = MetricSums.empty()
    if rows:
        sums.add(*zip(*rows, strict=True))
    return sums


def same(a, b, rel=0.0):
    assert a.keys() == b.keys()
    for key in a:
        if a[key] is None or b[key] is None:
            assert a[key] is b[key], key
        else:
            assert math.isclose(a[key], b[key], rel_tol=rel, abs_tol=rel), key


@given(some_rows, some_rows)
def test_merge_commutes(a, b):
    x, y = sums_of(a), sums_of(b)
    same(MetricSums.merge(x, y).values(), MetricSums.merge(y, x).values())


@given(some_rows, some_rows, some_rows)
def test_merge_is_associative_and_equals_one_pass(a, b, c):
    x, y, z = sums_of(a), sums_of(b), sums_of(c)
    left = MetricSums.merge(MetricSums.merge(x, y), z).values()
    right = MetricSums.merge(x, MetricSums.merge(y, z)).values()
    same(left, right, rel=1e-12)
    same(left, sums_of(a + b + c).values(), rel=1e-12)


@given(some_rows)
def test_empty_is_neutral_and_sparse_is_lossless(rows):
    sums = sums_of(rows)
    same(MetricSums.merge(sums, MetricSums.empty()).values(), sums.values())
    same(sums.sparse().dense().values(), sums.values())


@given(some_rows, st.lists(st.integers(0, 30), max_size=5))
def test_any_cut_gives_the_same_bits(rows, cuts):
    cut = MetricSums.empty()
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    for low, high in itertools.pairwise(edges):
        if high > low:
            cut.add(*zip(*rows[low:high], strict=True))
    same(cut.values(), sums_of(rows).values())


@given(st.lists(row, min_size=1, max_size=30))
def test_log_loss_equals_sklearn(rows):
    prob, label, weight = map(np.array, zip(*rows, strict=True))
    expected = log_loss(label, prob, sample_weight=weight, labels=[0, 1])
    assert sums_of(rows).values()["log_loss"] == pytest.approx(expected, rel=1e-11)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    base=st.floats(-9, 2),
    spread=st.floats(0.5, 3),
    slope=st.floats(-1, 3),
)
def test_histogram_auc_is_within_1e_4_of_the_exact_one(seed, base, spread, slope):
    rng = np.random.default_rng(seed)
    logit = base + spread * rng.standard_normal(60_000)
    truth = 1 / (1 + np.exp(-(base + slope * (logit - base))))
    label = rng.random(60_000) < truth
    label[:2] = [False, True]
    weight = rng.choice([1.0, 4.0], 60_000)
    prob = 1 / (1 + np.exp(-logit))
    sums = MetricSums.empty()
    sums.add(prob, label, weight)
    # Ranking is by the clipped log-odds, so compare inside the grid's range.
    exact = roc_auc_score(label, np.clip(prob, 1.2e-7, 1 - 1.2e-7), sample_weight=weight)
    few = min(label.sum(), (~label).sum())
    # With a handful of clicks one pair inside a bin weighs more than 1e-4.
    assert abs(sums.values()["auc"] - exact) < max(1e-4, 0.02 / few)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 4)), min_size=2).filter(
        lambda rows: len({label for _, label, _ in rows}) == 2
    )
)
def test_histogram_auc_is_exact_with_ties_on_bin_scores(rows):
    score, label, weight = map(np.array, zip(*rows, strict=True))
    cells = np.zeros((2, N_BINS))
    np.add.at(cells, (label.astype(int), score), weight)
    expected = roc_auc_score(label, score, sample_weight=weight)
    assert histogram_auc(cells[0], cells[1]) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_prediction_difference_is_symmetric_and_bounded(pairs):
    a, b = map(np.array, zip(*pairs, strict=True))
    value = prediction_difference(a, b)
    assert value is not None
    assert 0 <= value <= 2
    assert value == prediction_difference(b, a)
