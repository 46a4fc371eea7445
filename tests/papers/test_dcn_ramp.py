from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from ctr.errors import ConfigError
from ctr.models import Dlrm, Mlp, WideDcn
from ctr.models.cross import CrossLayers
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.techniques.dcn_ramp import DcnRamp
from ctr.techniques.ensemble import EnsembleModule

X = tf.random.stateless_normal([8, 12], [1, 2])


def seen(n: int) -> tf.Tensor:
    return tf.constant(n, tf.int64)


def pair(ramp: int) -> tuple[CrossLayers, CrossLayers]:
    """The same two layers with a ramp and without."""
    return CrossLayers(2, 4, ramp, False, seed=5), CrossLayers(2, 4, 0, False, seed=5)


def test_no_ramp_is_the_plain_model() -> None:
    assert compose(Recipe(), [DcnRamp(2, 64, 0)]) == Recipe(model=WideDcn())
    assert compose(Recipe(), [DcnRamp(0, 64, 0)]).model == WideDcn(cross_layers=0)


def test_before_the_ramp_nothing_is_crossed_and_after_it_all_bits_are_dcn() -> None:
    ramped, plain = pair(100)
    np.testing.assert_array_equal(ramped(X, seen(0)), X)
    for n in (100, 10**9):
        np.testing.assert_array_equal(ramped(X, seen(n)), plain(X, seen(n)))
    assert float(tf.reduce_max(tf.abs(plain(X, seen(0)) - X))) > 0.01


def test_in_between_each_layer_is_crossed_by_that_share() -> None:
    ramped, plain = pair(100)
    x = X
    for layer in plain.layers:
        x = x + 0.25 * (layer(X, x) - x)
    np.testing.assert_allclose(ramped(X, seen(25)), x, atol=1e-6)


def test_crosses_learn_as_soon_as_the_ramp_has_begun() -> None:
    ramped, _ = pair(100)
    norms = []
    for n in (0, 1):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(ramped(X, seen(n)) ** 2)
        gradients = tape.gradient(loss, ramped.layers[0].trainable_variables)
        norms.append(float(tf.linalg.global_norm(gradients)))
    assert norms[0] == 0.0
    assert norms[1] > 0.0


def test_a_learned_factor_starts_at_nothing_and_can_leave_it() -> None:
    rezero = CrossLayers(2, 4, 0, True, seed=5)
    with tf.GradientTape() as tape:
        out = rezero(X, seen(0))
        loss = tf.reduce_sum(out**2)
    np.testing.assert_array_equal(out, X)
    assert all(abs(float(g)) > 0 for g in tape.gradient(loss, rezero.scales))


def test_one_layer_holds_any_sum_of_products_and_a_tower_does_not() -> None:
    """DCN V2, section 7: f = sum of w_ij x_i x_j, uniform inputs (here 16 of them, 24 pairs)."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=(4000, 16)).astype(np.float32)
    pairs = rng.choice(16 * 16, 24, replace=False)
    weights = np.zeros(16 * 16)
    weights[pairs] = rng.normal(size=24)
    y = np.einsum("bi,ij,bj->b", x, weights.reshape(16, 16), x)[:, None].astype(np.float32)

    def rmse(layers: list) -> float:
        tf_keras.utils.set_random_seed(0)  # before the first weight is drawn
        inputs = tf_keras.Input([16])
        h = inputs
        for layer in layers:
            h = layer(h)
        net = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(h))
        net.compile(tf_keras.optimizers.Adam(0.01), "mse")
        net.fit(x[:3000], y[:3000], batch_size=100, epochs=25, verbose=0)
        return float(net.evaluate(x[3000:], y[3000:], verbose=0)) ** 0.5

    cross = CrossLayers(1, None, 0, False, seed=2).layers[0]
    assert rmse([lambda h: cross(h, h)]) < 0.05
    assert rmse([tf_keras.layers.Dense(16, "relu")]) > 0.2


@pytest.mark.parametrize("model", [WideDcn(), Mlp(), Dlrm()])
def test_it_applies_to_every_deep_model_and_inside_wrappers(model) -> None:
    ramped = compose(Recipe(model=model), [DcnRamp(1, 8, 500)]).model
    assert (ramped.cross_layers, ramped.cross_rank, ramped.cross_ramp) == (1, 8, 500)
    wrapped = compose(Recipe(model=model), [EnsembleModule(2), DcnRamp(1, 8, 500)]).model
    assert wrapped.base == ramped
    learned = compose(Recipe(model=model), [DcnRamp(1, 8, 500, learned=True)]).model
    assert learned.cross_rezero
    assert not learned.cross_ramp


def test_bad_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="rank at least 1"):
        DcnRamp(rank=0)
    with pytest.raises(ConfigError, match="two ways"):
        WideDcn(cross_ramp=10, cross_rezero=True)
