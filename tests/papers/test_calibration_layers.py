"""Online Platt and isotonic calibration: reductions, recovery of planted errors, a closed loop."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Batch
from ctr.calibration import NoCalibration, SliceBias
from ctr.encoding.layout import layout_of
from ctr.errors import ConfigError
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.isotonic import Isotonic, IsotonicLayer, in_order
from ctr.techniques.platt import Platt, PlattLayer

SCHEMA = Schema("s", (Feature("place"), Feature("other")), (Label("click"),), slices=("place",))
LAYOUT = layout_of(SCHEMA)
SIZE = 256
#: Fine and quick, for short streams.
FINE = Isotonic(knots=25, prior=5.0, memory=50.0)
ALONE = dataclasses.replace(FINE, after=NoCalibration())


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def run(config, distort, n, seed=0, spread=1.2, change=None):
    """Learns on logits that are wrong by ``distort(z, place)``.

    Returns the truth, the calibrated logit before learning, and the place of every example.
    """
    rng = np.random.default_rng(seed)
    state = config.build(LAYOUT, ("place",), 1)

    @tf.function(jit_compile=True)
    def step(logits, ids, labels, weights):
        out = state(logits, ids)
        state.learn(logits, Batch(ids, tf.zeros([SIZE, 0]), labels, weights, {}, tf.constant(0)))
        return out

    truths, outs, places = [], [], []
    for at in range(0, n, SIZE):
        truth = rng.normal(-2.5, spread, SIZE).astype(np.float32)
        place = rng.integers(0, 3, SIZE)
        ids = np.stack([place + 7, rng.integers(0, 50, SIZE)], axis=1).astype(np.int32)
        now = truth + (change(at) if change else 0.0)
        labels = (rng.random(SIZE) < sigmoid(now)).astype(np.float32)[:, None]
        logits = distort(truth, place).astype(np.float32)[:, None]
        outs.append(step(logits, ids, labels, np.ones(SIZE, np.float32)).numpy()[:, 0])
        truths.append(now)
        places.append(place)
    return np.concatenate(truths), np.concatenate(outs), np.concatenate(places)


@pytest.mark.parametrize("config", [Platt(prior=1e12), Isotonic(prior=1e12, after=NoCalibration())])
def test_a_heavy_prior_leaves_the_logits_alone(config):
    truth, out, _ = run(config, lambda z, place: z, 20 * SIZE)
    np.testing.assert_allclose(out, truth, atol=1e-6)


@pytest.mark.parametrize("config", [Platt(), ALONE, FINE])
def test_the_first_prediction_is_the_models_own(config):
    truth, out, _ = run(config, lambda z, place: z, SIZE)
    np.testing.assert_array_equal(out, truth)


def test_without_slices_there_is_still_one_line():
    state = Platt().build(LAYOUT, (), 1)
    assert state.offset.shape == [1, 1]
    logits = tf.constant([[0.5], [1.0]])
    np.testing.assert_array_equal(state(logits, tf.ones([2, 2], tf.int32)), logits)


def test_platt_recovers_a_planted_line_per_slice():
    slope, offset = np.array([0.5, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
    n = 300 * SIZE

    def distort(z, place):
        return slope[place] * (z + 2.0) - 2.0 + offset[place]

    truth, out, place = run(Platt(), distort, n)
    late = np.arange(len(truth)) > 0.8 * n
    for value in range(3):
        chosen = late & (place == value)
        fit = np.polyfit(truth[chosen], out[chosen], 1)
        assert abs(fit[0] - 1.0) < 0.25
        assert abs(sigmoid(out[chosen]).sum() / sigmoid(truth[chosen]).sum() - 1.0) < 0.05


@pytest.mark.parametrize("config", [ALONE, FINE])
def test_isotonic_recovers_a_planted_curve(config):
    n = 300 * SIZE

    def distort(z, place):
        return z + 1.2 * np.tanh(1.5 * (z + 2.5))  # monotone, and no line

    truth, out, _ = run(config, distort, n)
    late = np.arange(len(truth)) > 0.8 * n
    raw = distort(truth, None)
    for low, high in ((-4.5, -3.0), (-3.0, -2.0), (-2.0, 0.0)):
        chosen = late & (truth > low) & (truth < high)
        ours = sigmoid(out[chosen]).sum() / sigmoid(truth[chosen]).sum()
        before = sigmoid(raw[chosen]).sum() / sigmoid(truth[chosen]).sum()
        assert abs(ours - 1.0) < 0.1
        assert abs(before - 1.0) > 2.0 * abs(ours - 1.0)


def test_isotonic_never_turns_an_order_round():
    rng = np.random.default_rng(0)
    state = ALONE.build(LAYOUT, (), 1)
    ids = np.zeros((SIZE, 2), np.int32)
    for _ in range(30):
        logits = rng.normal(-2.0, 2.0, (SIZE, 1)).astype(np.float32)
        labels = (rng.random((SIZE, 1)) < 0.5).astype(np.float32)
        weights = np.ones(SIZE, np.float32)
        state.learn(logits, Batch(ids, None, labels, weights, {}, None))
    assert (np.diff(state.values.numpy()[:, 0]) >= 0.0).all()
    grid = np.linspace(-9, 5, 1001, dtype=np.float32)[:, None]
    assert (np.diff(state(grid, np.zeros((1001, 2), np.int32)).numpy()[:, 0]) >= -1e-5).all()


def test_isotonic_regression_equals_pooling_adjacent_violators():
    from sklearn.isotonic import isotonic_regression

    rng = np.random.default_rng(1)
    for _ in range(20):
        values = rng.normal(size=(9, 2)).astype(np.float32)
        weights = rng.uniform(0.1, 3.0, (9, 2)).astype(np.float32)
        ours = in_order(tf.constant(values), tf.constant(weights)).numpy()
        for task in range(2):
            theirs = isotonic_regression(values[:, task], sample_weight=weights[:, task])
            np.testing.assert_allclose(ours[:, task], theirs, atol=1e-5)


@pytest.mark.parametrize("config", [Platt(), Isotonic()])
def test_padding_and_unknown_labels_teach_nothing(config):
    state = config.build(LAYOUT, ("place",), 1)
    logits, ids = tf.random.normal([8, 1]), tf.ones([8, 2], tf.int32)
    before = [v.numpy() for v in state.variables]
    labels, weights = tf.ones([8, 1]), tf.ones([8])
    state.learn(logits, Batch(ids, None, labels, 0.0 * weights, {}, None))
    state.learn(logits, Batch(ids, None, -labels, weights, {}, None))
    for old, new in zip(before, state.variables, strict=True):
        np.testing.assert_allclose(old, new.numpy(), atol=1e-7)


#: Alone, without a model that follows too: examples in which the bias closes to below 2 % after
#: the base rate jumps by 0.5 logits.
@pytest.mark.parametrize(
    ("config", "examples"),
    [
        (SliceBias(prior=10.0, memory=60.0), 20_000),
        (Platt(), 20_000),
        (FINE, 20_000),
        (ALONE, 20_000),
    ],
)
def test_the_loop_closes_after_a_jump_of_the_base_rate(config, examples):
    jump, n = 60 * SIZE, 240 * SIZE
    curves = []
    for seed in range(3):
        truth, out, _ = run(
            config, lambda z, place: z, n, seed, change=lambda at: 0.5 * (at >= jump)
        )
        p, q = (sigmoid(x[jump:]).reshape(-1, 4 * SIZE).sum(axis=1) for x in (out, truth))
        curves.append(p / q)
    mean = np.mean(curves, axis=0)
    assert mean[0] < 0.9
    assert np.abs(mean[examples // (4 * SIZE) :].mean() - 1.0) < 0.02


def test_modules_compose_and_settings_out_of_range_are_refused():
    both = compose(Recipe(), [PlattLayer(memory=200.0), IsotonicLayer(knots=9)])
    assert both.calibrator.after == Platt(memory=200.0)
    assert both.calibrator.knots == 9
    refused = [
        (PlattLayer, {"prior": 0.0}),
        (IsotonicLayer, {"knots": 1}),
        (IsotonicLayer, {"low": 1.0, "high": 0.0}),
        (IsotonicLayer, {"memory": 0.0}),
    ]
    for module, settings in refused:
        with pytest.raises(ConfigError):
            module(**settings)
