"""Bias constraints: the sign, the fixed point, the toy of the specification, composition."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from ctr.api import Batch, Forward
from ctr.data.examples import Chunk
from ctr.encoding.layout import layout_of
from ctr.errors import ConfigError, CtrError, ModuleError
from ctr.learner import Learner
from ctr.losses import LogLoss, build_loss
from ctr.models import Linear
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schedules import Ramp
from ctr.schema import Feature, Label, Schema
from ctr.techniques.bias_constraints import BiasConstraints, ConstrainedLoss

SCHEMA = Schema("s", (Feature("slot"), Feature("sign")), (Label("click"),), side=("shuffled",))
LAYOUT = layout_of(SCHEMA)


def batch(ids, labels, weights=None, side=None):
    n = len(labels)
    weights = tf.ones([n]) if weights is None else tf.constant(weights, tf.float32)
    labels = tf.reshape(tf.constant(labels, tf.float32), [n, -1])
    return Batch(tf.constant(ids, tf.int32), tf.zeros([n, 0]), labels, weights, side or {},
                 tf.constant(0, tf.int64))  # fmt: skip


def test_it_is_the_mean_loss_plus_a_multiplier_times_each_slices_mean_error():
    state = ConstrainedLoss(("slot",), weight=0.3, ramp=Ramp()).build(LAYOUT, 1)
    rng = np.random.default_rng(0)
    state.multiplier.assign(rng.normal(size=state.multiplier.shape))
    ids = np.stack([rng.integers(1, 4, 32), np.ones(32)], axis=1)
    labels, weights = rng.integers(0, 2, 32), rng.uniform(0.5, 2.0, 32)
    weights[-3:] = 0.0
    logits = tf.constant(rng.normal(size=(32, 1)), tf.float32)
    example = batch(ids, labels, weights)
    got = tf.reduce_sum(state(Forward(logits, {}), example) * example.weights) / weights.sum()
    p = 1 / (1 + np.exp(-logits.numpy()[:, 0]))
    expected = (weights * LogLoss()(Forward(logits, {}), example).numpy()).sum() / weights.sum()
    for value in range(1, 4):
        inside = weights * (ids[:, 0] == value)
        bias = (inside * (labels - p)).sum() / inside.sum()
        expected += 0.3 * state.multiplier.numpy()[value, 0] * bias
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_gradient_on_a_logit_is_the_residual_minus_lambda_times_the_variance():
    state = ConstrainedLoss(("slot",), weight=1.0).build(LAYOUT, 1)
    state.multiplier.assign(tf.fill(state.multiplier.shape, 0.4))
    logits = tf.constant([[0.3], [-1.0]])
    example = batch([[1, 1], [2, 1]], [1, 0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_mean(state(Forward(logits, {}), example))
    p = tf.sigmoid(logits).numpy()[:, 0]
    # Two slices of one example each: a slice's mean counts twice an example's share of the mean.
    expected = (p - [1, 0] - 2 * 0.4 * p * (1 - p)) / 2
    np.testing.assert_allclose(tape.gradient(loss, logits)[:, 0], expected, rtol=1e-5)


def test_multipliers_settle_at_bias_over_alpha_and_empty_slices_keep_theirs():
    state = ConstrainedLoss(("slot",), alpha=0.5, rate=0.1).build(LAYOUT, 1)
    state.multiplier[9].assign([3.0])
    example = batch([[1, 1]] * 4 + [[2, 1]] * 4, [1, 1, 0, 0, 0, 0, 0, 0])
    forward = Forward(tf.fill([8, 1], -1.0), {})
    for _ in range(300):
        state.learn(forward, example)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(
        state.multiplier.numpy()[[1, 2, 9], 0], [(0.5 - p) / 0.5, -p / 0.5, 3.0], rtol=1e-4
    )


def test_the_bias_of_a_one_parameter_model_goes_to_zero():
    # The model has one level for two slices and cannot please both; only one is constrained.
    config = ConstrainedLoss(("slot",), column="shuffled", weight=1.0, alpha=0.001, rate=0.2)
    state = config.build(LAYOUT, 1)
    labels = np.r_[np.ones(30), np.zeros(70), np.ones(80), np.zeros(20)]
    side = {"shuffled": tf.constant(np.r_[np.ones(100), np.zeros(100)], tf.float32)}
    example = batch([[1, 1]] * 200, labels, side=side)
    level = tf.Variable(0.0)
    for _ in range(1500):
        with tf.GradientTape() as tape:
            forward = Forward(tf.fill([200, 1], level), {})
            loss = tf.reduce_mean(state(forward, example))
        level.assign_sub(0.3 * tape.gradient(loss, level))
        state.learn(forward, example)
    assert abs(float(tf.sigmoid(level)) - 0.3) < 0.01  # 0.55 without the constraint


def confounded(rng, n_queries):
    rel = rng.normal(size=(n_queries, 4))
    order = np.argsort(-rel, axis=1)
    shuffled = rng.random(n_queries) < 0.02
    drawn = np.argsort(rng.random((n_queries, 4)), axis=1)
    order = np.where(shuffled[:, None], drawn, order)
    rel = np.take_along_axis(rel, order, axis=1)
    slot = np.broadcast_to(np.arange(4), rel.shape)
    clicks = rng.random(rel.shape) < 1 / (1 + np.exp(-(-2.0 + 1.2 * rel - 0.5 * slot)))
    proxy = rel + rng.normal(size=rel.shape)
    flat = (x.reshape(-1) for x in (proxy, slot, clicks, np.repeat(shuffled, 4)))
    return tuple(x.astype(np.float32) for x in flat)


def learned_position_effect(alpha, steps=1500, n_queries=2048):
    """Returns the learned effect of the last against the first position; the truth is -1.5."""
    slices = ("slot*sign",)
    config = ConstrainedLoss(
        slices, column="shuffled", weight=1 / 8 if alpha else 0.0, alpha=alpha or 1.0, rate=0.05,
        ramp=Ramp(0.1 * steps * n_queries * 4),
    )  # fmt: skip
    state = config.build(LAYOUT, 1)
    weights = [tf.Variable(-2.0), tf.Variable(0.0), tf.Variable(tf.zeros([4]))]
    optimizer = tf_keras.optimizers.Adam(
        tf_keras.optimizers.schedules.PolynomialDecay(0.03, steps, 0.001)
    )
    optimizer.build(weights)

    @tf.function(jit_compile=True)
    def step(proxy, slot, click, shuffled, seen):
        ids = tf.stack([tf.cast(slot, tf.int32) + 1, tf.cast(proxy > 0.0, tf.int32) + 1], axis=1)
        example = Batch(ids, tf.zeros([slot.shape[0], 0]), click[:, None],
                        tf.ones_like(click), {"shuffled": shuffled}, seen)  # fmt: skip
        with tf.GradientTape() as tape:
            effect = tf.gather(weights[2], tf.cast(slot, tf.int32))
            forward = Forward((weights[0] + weights[1] * proxy + effect)[:, None], {})
            loss = tf.reduce_mean(state(forward, example))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        state.learn(forward, example)

    rng = np.random.default_rng(0)
    for i in range(steps):
        step(*confounded(rng, n_queries), tf.constant(i * n_queries * 4, tf.int64))
    return float(weights[2][3] - weights[2][0])


def test_the_true_position_effect_is_recovered_from_two_percent_of_shuffled_pages():
    free, bound = learned_position_effect(0.0), learned_position_effect(0.02)
    assert free < -2.4
    assert abs(bound + 1.5) < 0.2


def test_buckets_of_predicted_rate_are_slices_too():
    state = ConstrainedLoss(ctr_buckets=8, alpha=0.5, rate=0.1).build(LAYOUT, 1)
    logits = tf.constant([[-9.0]] * 4 + [[9.0]] * 4)
    for _ in range(300):
        state.learn(Forward(logits, {}), batch([[1, 1]] * 8, [1, 0, 0, 0, 1, 1, 1, 0]))
    found = state.by_rate.numpy()[:, 0]
    np.testing.assert_allclose(found[[0, -1]], [0.5, -0.5], atol=1e-3)
    assert (found[1:-1] == 0.0).all()


def test_states_of_nested_losses_are_found_and_built():
    inner = ConstrainedLoss(("slot",))
    outer = ConstrainedLoss(("sign",), base=inner)
    built, states = build_loss(outer, LAYOUT, 1)
    assert built is states[-1]
    assert len(states) == 2
    assert build_loss(LogLoss(), LAYOUT, 1) == (LogLoss(), [])


def test_a_learner_trains_checkpoints_and_resumes_with_it(tmp_path):
    recipe = compose(
        Recipe(model=Linear(), batch_size=256, table_rows=2048),
        [BiasConstraints(("slot", "slot*sign"), ctr_buckets=4, column="shuffled", ramp_examples=0)],
    )
    learner = Learner(recipe, SCHEMA, n_batches=4)
    assert learner.side == ("shuffled",)
    rng = np.random.default_rng(0)

    def chunk():
        return Chunk(
            rng.integers(1, 9, (4, 256, 2)).astype(np.int32), np.zeros((4, 256, 0), np.float32),
            rng.integers(0, 2, (4, 256, 1)).astype(np.float32), np.ones((4, 256), np.float32),
            {"shuffled": rng.integers(0, 2, (4, 256)).astype(np.float32)},
        )  # fmt: skip

    learner.learn(chunk())
    path = tf.train.Checkpoint(learner=learner).write(str(tmp_path / "c"))
    other = Learner(recipe, SCHEMA, n_batches=4)
    tf.train.Checkpoint(learner=other).read(path).assert_consumed()
    more = chunk()
    np.testing.assert_array_equal(learner.learn(more), other.learn(more))
    state = learner.loss_states[0]
    assert np.abs(state.multiplier.numpy()).sum() > 0.0
    assert not any(v is state.multiplier for v in learner.model.trainable_variables)


def test_weight_zero_is_the_plain_loss():
    state = ConstrainedLoss(("slot",), weight=0.0).build(LAYOUT, 1)
    state.multiplier.assign(tf.ones(state.multiplier.shape))
    example = batch([[1, 1], [2, 2]], [1, 0])
    forward = Forward(tf.constant([[0.2], [0.7]]), {})
    np.testing.assert_array_equal(state(forward, example), LogLoss()(forward, example))


def test_wrong_settings_are_refused_with_a_sentence():
    with pytest.raises(ConfigError, match="nothing to constrain"):
        BiasConstraints()
    with pytest.raises(ConfigError, match="rate"):
        BiasConstraints(("slot",), rate=0.0)
    recipe = Recipe(model=Linear(), batch_size=8, table_rows=2048)
    with pytest.raises(ModuleError, match="slott"):
        Learner(compose(recipe, [BiasConstraints(("slott",))]), SCHEMA)
    with pytest.raises(CtrError, match="randomised"):
        Learner(compose(recipe, [BiasConstraints(("slot",), column="randomised")]), SCHEMA)
