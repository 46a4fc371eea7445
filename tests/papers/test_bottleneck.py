from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from ctr.errors import ConfigError, ModuleError
from ctr.models import Dlrm, Linear, Mlp, WideDcn
from ctr.models.layers import run, saves, tower
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.techniques.bottleneck import Bottleneck


def output(layers: list[tf_keras.layers.Dense], x: tf.Tensor) -> tf.Tensor:
    return run(layers, x)[0]


@pytest.mark.parametrize(("m", "n"), [(256, 128), (64, 64), (400, 10)])
def test_break_even_is_where_multiplications_are_equal(m: int, n: int) -> None:
    for rank in range(1, min(m, n) + 1):
        assert saves(m, n, rank) == (rank < m * n / (m + n))
    assert saves(64, 64, 31)
    assert not saves(64, 64, 32)


def test_a_bottleneck_is_the_full_layer_with_the_product_as_its_matrix() -> None:
    x = tf.random.stateless_normal([16, 12], [1, 2])
    layers = tower(12, [8], "relu", 1.0, [3], seed=7)
    thin, wide = layers
    found = output(layers, x)
    wide.bias.assign(tf.linspace(-1.0, 1.0, 8))
    full = tf_keras.layers.Dense(8, "relu")
    full.build([None, 12])
    full.kernel.assign(thin.kernel @ wide.kernel)
    full.bias.assign(wide.bias)
    assert len(thin.trainable_variables) == 1
    assert thin.activation is tf_keras.activations.linear
    assert float(tf.reduce_max(tf.abs(found))) > 0
    np.testing.assert_allclose(output(layers, x), full(x), atol=1e-5)


def test_initial_variance_is_that_of_a_full_layer() -> None:
    x = tf.random.stateless_normal([512, 300], [3, 4])

    def variance(ranks: list[int]) -> float:
        return np.mean(
            [np.var(output(tower(300, [200], "relu", 1.0, ranks, s)[:-1] or [], x)
                    @ tower_kernel(300, 200, ranks, s)) for s in range(4)]
        )  # fmt: skip

    def tower_kernel(m: int, n: int, ranks: list[int], seed: int) -> np.ndarray:
        layers = tower(m, [n], "relu", 1.0, ranks, seed)
        output(layers, x)
        return layers[-1].kernel.numpy()

    assert variance([40]) == pytest.approx(variance([]), rel=0.1)
    assert variance([]) == pytest.approx(2.0, rel=0.1)


def test_layers_that_would_not_get_cheaper_stay_whole() -> None:
    # 100 -> 64 saves below 39.02, 64 -> 32 below 21.3.
    layers = tower(100, [64, 32], "relu", 1.0, [30, 30], seed=0)
    assert [layer.units for layer in layers] == [30, 64, 32]
    whole = tower(100, [64, 32], "relu", 1.0, [30, 0], seed=0)
    x = tf.ones([2, 100])
    np.testing.assert_array_equal(output(layers, x), output(whole, x))
    with pytest.raises(ConfigError, match=r"save nothing in layers of 100 -> 64 -> 32"):
        tower(100, [64, 32], "relu", 1.0, [50, 50], seed=0)


def test_log_loss_is_flat_from_the_planted_rank_on() -> None:
    """A net whose first layer has rank 4: fewer ranks cost, more do not gain.

    Learned from its probabilities, not from drawn labels, so that no noise hides the order.
    """
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2000, 24)), tf.float32)
    planted = rng.normal(size=(24, 4)) @ rng.normal(size=(4, 16)) / 5.0
    score = np.maximum(x.numpy() @ planted, 0.0) @ rng.choice([-1.0, 1.0], 16) / 2.0
    prob = tf.sigmoid(tf.constant(score[:, None], tf.float32))

    def excess(rank: int) -> float:
        """Log loss above the smallest possible one, in nats."""
        tf_keras.utils.set_random_seed(0)  # the head draws from it
        layers = [*tower(24, [32], "relu", 1.0, [rank], seed=3), tf_keras.layers.Dense(1)]
        output(layers, x)
        layers[-1].kernel.assign(layers[-1].kernel * 0.1)
        weights = [v for layer in layers for v in layer.trainable_variables]
        optimizer = tf_keras.optimizers.Adam(0.02, jit_compile=False)
        optimizer.build(weights)

        def loss() -> tf.Tensor:
            logits = output(layers, x)
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(prob, logits))

        @tf.function
        def train() -> None:
            for _ in tf.range(400):
                with tf.GradientTape() as tape:
                    value = loss()
                optimizer.apply_gradients(zip(tape.gradient(value, weights), weights, strict=True))

        train()
        floor = tf.reduce_mean(tf.keras.losses.binary_crossentropy(prob, prob))
        return float(loss() - floor)

    found = {rank: excess(rank) for rank in (1, 2, 4, 8, 12)}
    assert found[1] > 1.5 * found[2] > 3 * found[4]
    assert abs(found[4] - found[12]) < 0.1 * found[2], found


@pytest.mark.parametrize("model", [WideDcn(), Mlp(), Dlrm()])
def test_it_applies_to_every_deep_model(model) -> None:
    deep = compose(Recipe(model=model), [Bottleneck(16, widen=1.5)]).model
    assert deep.hidden == tuple(round(1.5 * n) for n in model.hidden)
    assert deep.ranks == (16,) * len(model.hidden)
    shared = compose(Recipe(model=model), [Bottleneck(0.25, widen=2.0)]).model
    assert shared.ranks == tuple(n // 2 for n in model.hidden)


def test_bad_settings_are_refused_with_a_sentence() -> None:
    for rank in (0, -3, 2.5):
        with pytest.raises(ConfigError, match="a whole number or a share between 0 and 1"):
            Bottleneck(rank)
    with pytest.raises(ConfigError, match="widen above 0"):
        Bottleneck(8, widen=0.0)
    with pytest.raises(ConfigError, match="one number per hidden layer"):
        Mlp(hidden=(8, 4), ranks=(2,))
    with pytest.raises(ModuleError, match="Linear has none"):
        compose(Recipe(model=Linear()), [Bottleneck()])
