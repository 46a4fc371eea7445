"""RankNet over the pairs of a query: identities, properties and an effect on known truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Batch, Forward
from ctr.calibration import NoCalibration
from ctr.errors import ConfigError, SchemaError
from ctr.learner import Learner
from ctr.losses import LogLoss
from ctr.models import Linear
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schedules import Ramp
from ctr.schema import Feature, Label, Schema
from ctr.techniques.bias_constraints import BiasConstraints
from ctr.techniques.pairs import TILE, pair_loss
from ctr.techniques.platt import PlattLayer
from ctr.techniques.rank_loss import RankLoss, RankLossModule

SCHEMA = Schema(
    "pages",
    (Feature("page"), Feature("item")),
    (Label("click"),),
    {"query_id": ("page",)},
)


def brute(s: np.ndarray, y: np.ndarray, w: np.ndarray, q: np.ndarray) -> tuple[float, np.ndarray]:
    total, slope = 0.0, np.zeros(len(s))
    for query in np.unique(q):
        rows = np.flatnonzero(q == query)
        loss, scale, own = 0.0, 0.0, np.zeros(len(s))
        for i in rows[y[rows] == 1]:
            for j in rows[y[rows] == 0]:
                pair = w[i] * w[j]
                scale += pair
                loss += pair * np.logaddexp(0.0, s[j] - s[i])
                force = pair / (1.0 + np.exp(s[i] - s[j]))
                own[i] -= force
                own[j] += force
        if scale:
            total += w[rows].sum() * loss / scale
            slope += w[rows].sum() * own / scale
    return total, slope


def both(*arrays: np.ndarray) -> tuple[float, np.ndarray]:
    with tf.GradientTape() as tape:
        logits, *rest = (tf.constant(a) for a in arrays)
        tape.watch(logits)
        loss = pair_loss(logits, *rest)
    return float(loss), tape.gradient(loss, logits).numpy()


def rows(n: int, n_queries: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=n).astype(np.float32),
        (rng.random(n) < 0.3).astype(np.float32),
        (rng.random(n) * (rng.random(n) < 0.9)).astype(np.float32),
        rng.integers(0, n_queries, n) * 10**15 - 7,
    )


# One query over all tiles, queries that lie apart, many short ones; a size that is no multiple.
@pytest.mark.parametrize(("n", "n_queries"), [(70, 1), (3 * TILE, 3), (100, 40), (5, 2)])
def test_value_and_gradient_equal_the_sum_over_all_pairs(n: int, n_queries: int) -> None:
    arrays = rows(n, n_queries, seed=n)
    loss, slope = both(*arrays)
    expected, expected_slope = brute(*(a.astype(float) for a in arrays[:3]), arrays[3])
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(slope, expected_slope, atol=2e-6)


def test_the_gradient_of_a_query_sums_to_nothing() -> None:
    s, y, w, q = rows(96, 5, seed=1)
    _, slope = both(s, y, w, q)
    assert np.abs(slope).max() > 0.01
    for query in np.unique(q):
        assert abs(slope[q == query].sum()) < 1e-5


def test_queries_with_one_kind_of_label_and_single_rows_add_nothing() -> None:
    s = np.array([1.0, -1.0, 2.0, 0.5], np.float32)
    y = np.array([1.0, 1.0, 0.0, 0.0], np.float32)
    loss, slope = both(s, y, np.ones(4, np.float32), np.array([0, 0, 1, 2]))
    assert loss == 0.0
    assert not slope.any()


def test_a_common_weight_of_a_query_counts_once() -> None:
    s, y, w, q = rows(64, 1, seed=2)
    loss, slope = both(s, y, w, q)
    tripled, steeper = both(s, y, 3 * w, q)
    assert tripled == pytest.approx(3 * loss, rel=1e-5)
    np.testing.assert_allclose(steeper, 3 * slope, rtol=1e-4, atol=1e-6)


def test_the_minimum_is_the_difference_of_the_true_log_odds() -> None:
    # Each of two examples stands there clicked and not clicked, with its probabilities as weights.
    p = np.array([0.3, 0.1])
    truth = np.log(p / (1 - p)).astype(np.float32)
    s, y = np.repeat(truth, 2), np.array([1, 0, 1, 0], np.float32)
    w = np.array([p[0], 1 - p[0], p[1], 1 - p[1]], np.float32)
    _, slope = both(s, y, w, np.zeros(4, np.int64))
    assert abs(slope[:2].sum()) < 1e-6
    _, moved = both(s + np.array([0.2, 0.2, 0, 0], np.float32), y, w, np.zeros(4, np.int64))
    assert moved[:2].sum() > 1e-3


def test_no_share_is_the_base_loss_to_the_bit() -> None:
    s, y, w, q = rows(64, 8, seed=3)
    side = {"query": tf.constant(q)}
    batch = Batch(
        tf.zeros([64, 1]), tf.zeros([64, 0]), tf.constant(y[:, None]), tf.constant(w), side,
        tf.constant(0, tf.int64),
    )  # fmt: skip
    forward = Forward(tf.constant(s[:, None]), {})
    base = LogLoss()(forward, batch)
    np.testing.assert_array_equal(RankLoss(0.0)(forward, batch), base)
    np.testing.assert_array_equal(RankLoss(0.5, ramp=Ramp(10))(forward, batch), base)
    mixed = RankLoss(0.5)(forward, batch)
    expected = 0.5 * (w @ base.numpy()) + 0.5 * brute(s, y, w, q)[0]
    assert float(tf.reduce_sum(mixed * w)) == pytest.approx(expected, rel=1e-5)


def test_without_queries_it_is_refused_with_a_sentence() -> None:
    recipe = compose(Recipe(table_rows=64), [RankLossModule()])
    with pytest.raises(SchemaError, match="has no query_id, which this recipe needs"):
        Learner(recipe, replace(SCHEMA, columns={}))


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range_are_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        RankLossModule(alpha)


def test_order_within_pages_gains_where_pages_differ_by_chance(write, one_pass) -> None:
    """Every page has its own level, which costs log loss its effort and the pair loss nothing."""
    rng = np.random.default_rng(5)
    n_pages, length = 1500, 6
    quality = rng.normal(0, 0.7, 400)
    page = np.repeat(np.arange(n_pages), length)
    item = rng.integers(0, 400, n_pages * length)
    logit = quality[item] + rng.normal(0, 2.0, n_pages)[page]
    click = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    folder = write(
        SCHEMA, click=click, query_id=[str(x) for x in page], item=[str(x) for x in item],
        page=[str(x) for x in page],
    )  # fmt: skip
    base = Recipe(model=Linear(), table_rows=8192, batch_size=64)
    order = {}
    for alpha in (0.0, 0.5):
        recipe = compose(base, [RankLossModule(alpha, ramp_examples=0)])
        learner = one_pass(folder, recipe).learner
        # What the items have learned, apart from any page.
        weight = learner.predict(*_items(learner))[:, 0]
        order[alpha] = np.corrcoef(np.log(weight / (1 - weight)), quality)[0, 1]
    assert order[0.5] > order[0.0] + 0.02


#: Arms of the calibration test: modules on top of a linear model without a calibrator.
MIX = RankLossModule(0.5, ramp_examples=0)
FINE = BiasConstraints(ctr_buckets=16, weight=1.0, alpha=0.005, rate=0.05, ramp_examples=0)
MIXES = {
    "log": [],
    "mixed": [MIX],
    "nearly pure": [RankLossModule(0.95, ramp_examples=0)],
    "mixed, platt": [MIX, PlattLayer()],
    "mixed, bound": [MIX, FINE],
}


@pytest.fixture(scope="module")
def levels() -> dict[str, np.ndarray]:
    """Pages whose common level nobody can know: a rate is flatter than the order within a page."""
    rng = np.random.default_rng(5)
    n_pages, length = 4000, 6
    quality = np.linspace(-2.0, 2.0, 60)
    page = np.repeat(np.arange(n_pages), length)
    item = rng.integers(0, 60, n_pages * length)
    level = rng.normal(0, 2.0, n_pages)
    click = rng.random(len(item)) < 1 / (1 + np.exp(1.5 - quality[item] - level[page]))
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    rates = 1 / (1 + np.exp(1.5 - quality[:, None] - 2.0 * points))
    return {
        "page": page, "item": item, "click": click.astype(np.int8), "quality": quality,
        "rate": (rates @ weights / weights.sum())[item],
    }  # fmt: skip


def _calibration_and_order(found: Any, world: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """Returns total bias, rms bias over deciles of predicted rate, and order within pages."""
    late = found.rows >= len(world["item"]) // 2
    prob, rows = found.prob[late], found.rows[late]
    rate = world["rate"][rows]
    deciles = np.array_split(np.argsort(prob), 10)
    bias = [prob[d].sum() / rate[d].sum() - 1 for d in deciles]
    page, quality = world["page"][rows], world["quality"][world["item"][rows]]
    pairs = (page[1:] == page[:-1]) & (quality[1:] != quality[:-1])
    right = np.sign(np.diff(prob)) == np.sign(np.diff(quality))
    rms = float(np.sqrt(np.mean(np.square(bias))))
    return prob.sum() / rate.sum() - 1, rms, right[pairs].mean()


def test_the_mix_distorts_calibration_by_bucket_and_calibration_restores_it(
    write, one_pass, levels
) -> None:
    folder = write(
        SCHEMA, click=levels["click"], query_id=[str(x) for x in levels["page"]],
        item=[str(x) for x in levels["item"]], page=[str(x) for x in levels["page"]],
    )  # fmt: skip
    base = Recipe(model=Linear(), table_rows=8192, batch_size=128, calibrator=NoCalibration())
    total, buckets, order = {}, {}, {}
    for name, modules in MIXES.items():
        found = one_pass(folder, compose(base, modules))
        total[name], buckets[name], order[name] = _calibration_and_order(found, levels)
    # The total hides it: the pair loss is blind to what a page has in common.
    assert max(abs(bias) for bias in total.values()) < 0.02
    assert buckets["log"] < 0.05
    assert 0.1 < buckets["mixed"] < buckets["nearly pure"] - 0.05
    assert order["mixed"] > order["log"] + 0.004
    # A layer keeps what was won in order; constraints within the loss pay with it.
    assert buckets["mixed, platt"] < 0.5 * buckets["mixed"]
    assert order["mixed, platt"] > order["log"] + 0.004
    assert buckets["mixed, bound"] < 0.3 * buckets["mixed"]
    assert order["mixed, bound"] < order["mixed"]


def _items(learner: Learner) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa

    names = pa.array([str(x) for x in range(400)])
    batch = pa.record_batch({"page": pa.array([None] * 400, pa.string()), "item": names})
    encoded = learner.encoder.encode(batch, source="items")
    return encoded.ids, encoded.numeric
