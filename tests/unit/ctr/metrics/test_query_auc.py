import numpy as np
import pytest

from ctr.errors import ConfigError
from ctr.metrics import QueryAuc
from ctr.metrics.rows import score_rows


def rows_of(n, n_queries, seed=0, levels=20):
    rng = np.random.default_rng(seed)
    query = rng.integers(0, n_queries, n).astype(np.uint64) * np.uint64(2**60 + 7)
    prob = rng.integers(1, levels, n) / levels
    label = (rng.random(n) < 0.3).astype(np.int8)
    return query, prob, label, rng.choice([0.5, 1.0, 3.0], n)


def brute_force(query, prob, label, weight, by):
    prob = prob.astype(np.float32)
    num = den = 0.0
    for q in np.unique(query):
        at = query == q
        p, y, w = prob[at], label[at], weight[at]
        won = total = 0.0
        for i in np.flatnonzero(y == 1):
            for j in np.flatnonzero(y == 0):
                won += w[i] * w[j] * (float(p[i] > p[j]) + 0.5 * float(p[i] == p[j]))
                total += w[i] * w[j]
        if total:
            share = w.sum() if by == "impressions" else 1.0
            num, den = num + share * won / total, den + share
    return num / den if den else None


def fill(auc, query, prob, label, weight, codes=None, chunks=1):
    for part in np.array_split(np.arange(len(query)), chunks):
        columns = [] if codes is None else [codes[part]]
        auc.add(query[part], score_rows(prob[part], label[part], weight[part]), columns)
    return auc


@pytest.mark.parametrize("by", ["impressions", "queries"])
@pytest.mark.parametrize("n_queries", [1, 40, 400])
def test_equals_brute_force_with_ties_and_weights(by, n_queries):
    data = rows_of(600, n_queries)
    auc = fill(QueryAuc(by), *data, chunks=7)
    assert auc.value() == pytest.approx(brute_force(*data, by), rel=1e-12)


def test_slices_split_queries():
    data = rows_of(800, 30, seed=2)
    codes = np.random.default_rng(5).integers(0, 3, 800)
    auc = fill(QueryAuc(slice_sizes=(4,)), *data, codes=codes, chunks=3)
    expected = [brute_force(*(x[codes == k] for x in data), "impressions") for k in range(3)]
    assert auc.slice_values()[0] == [*(pytest.approx(e, rel=1e-12) for e in expected), None]


def test_windows_cut_queries_but_the_lifetime_does_not():
    data = rows_of(400, 10, seed=3)
    auc = QueryAuc()
    fill(auc, *(x[:150] for x in data))
    first = auc.close_window()
    fill(auc, *(x[150:] for x in data))
    second = auc.close_window()
    for sums, part in ((first, slice(0, 150)), (second, slice(150, 400))):
        assert sums[0] / sums[1] == pytest.approx(
            brute_force(*(x[part] for x in data), "impressions"), rel=1e-12
        )
    assert auc.value() == pytest.approx(brute_force(*data, "impressions"), rel=1e-12)
    assert auc.window_sums().tolist() == [0.0, 0.0]


def test_folding_bounds_the_rows_and_evaluates_blocks():
    data = rows_of(1_000, 5, seed=4)
    auc = QueryAuc(max_rows=300, slice_sizes=(1,))
    fill(auc, *data, codes=np.zeros(1_000, dtype=np.int64), chunks=9)
    assert auc.folded_rows == 750
    blocks = [slice(s, min(s + 150, 1_000)) for s in range(0, 750, 150)] + [slice(750, 1_000)]
    num = den = 0.0
    for block in blocks:
        one = fill(QueryAuc(), *(x[block] for x in data)).window_sums()
        num, den = num + one[0], den + one[1]
    assert auc.value() == pytest.approx(num / den, rel=1e-12)
    assert auc.slice_values()[0] == [pytest.approx(num / den, rel=1e-12)]
    assert auc.window_sums() == pytest.approx([num, den], rel=1e-12)


def test_folding_does_not_depend_on_the_chunking():
    data = rows_of(1_000, 5, seed=4)
    values = {fill(QueryAuc(max_rows=64), *data, chunks=c).value() for c in (1, 4, 100)}
    assert len(values) == 1


def test_merge_equals_one_accumulator():
    data = rows_of(500, 20, seed=6)
    left = fill(QueryAuc("queries"), *(x[:180] for x in data))
    right = fill(QueryAuc("queries"), *(x[180:] for x in data))
    expected = brute_force(*data, "queries")
    assert QueryAuc.merge(left, right).value() == pytest.approx(expected, rel=1e-12)
    assert QueryAuc.merge(right, left).value() == pytest.approx(expected, rel=1e-12)


def test_merge_refuses_other_weighting():
    with pytest.raises(ConfigError, match="cannot merge"):
        QueryAuc.merge(QueryAuc("queries"), QueryAuc("impressions"))


def test_no_query_with_both_labels_is_undefined():
    auc = QueryAuc()
    assert auc.value() is None
    fill(auc, np.arange(5), np.full(5, 0.5), np.array([0, 1, 0, 1, 0]), np.ones(5))
    assert auc.value() is None


@pytest.mark.parametrize("options", [{"by": "pairs"}, {"max_rows": 1}])
def test_bad_options(options):
    with pytest.raises(ConfigError, match="received"):
        QueryAuc(**options)


def test_queries_whose_sort_keys_collide_are_told_apart():
    # Equal products with the mixing constant in the upper 32 bits: multiples of its inverse.
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    query, prob, label, weight = rows_of(300, 6, seed=8)
    query = np.array([int(q % 7) * inverse % 2**64 for q in query.tolist()], dtype=np.uint64)
    assert len(np.unique(query)) == 6
    other = rows_of(100, 5, seed=9)
    data = [np.concatenate(pair) for pair in zip((query, prob, label, weight), other, strict=True)]
    auc = fill(QueryAuc(), *data)
    assert auc.value() == pytest.approx(brute_force(*data, "impressions"), rel=1e-12)
