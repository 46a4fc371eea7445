from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ctr.errors import ConfigError, ModuleError
from ctr.models import Dlrm, Linear, Mlp, WideDcn
from ctr.models.activations import SMOOTH, activation, smelu
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.techniques.ensemble import EnsembleModule
from ctr.techniques.smooth_activation import HiddenActivation, Smelu


def value_and_slope(z: list[float], beta: float, compiled: bool) -> tuple[np.ndarray, np.ndarray]:
    @tf.function(jit_compile=compiled)
    def both(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = smelu(x, beta)
        return y, tape.gradient(y, x)

    value, slope = both(tf.constant(z, tf.float32))
    return value.numpy(), slope.numpy()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_smelu_is_exact_in_its_tails_and_at_its_joints(beta: float, compiled: bool) -> None:
    z = [-10.0, -2 * beta, -beta, 0.0, beta, 2 * beta, 16.0]
    value, slope = value_and_slope(z, beta, compiled)
    # A public port has beta / 4 all over the left tail; here it is 0, not nearly 0.
    np.testing.assert_array_equal(value, [0.0, 0.0, 0.0, beta / 4, beta, 2 * beta, 16.0])
    np.testing.assert_array_equal(slope, [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0])


def test_smelu_is_relu_under_a_uniform_shift() -> None:
    z = np.linspace(-3, 3, 61)
    shifts = (np.arange(20_000) + 0.5) / 10_000 - 1.0
    averaged = np.maximum(z[:, None] + shifts, 0.0).mean(axis=1)
    value, slope = value_and_slope(list(z), 1.0, compiled=False)
    np.testing.assert_allclose(value, averaged, atol=1e-6)
    np.testing.assert_allclose(slope, np.clip((z + 1) / 2, 0, 1), atol=1e-6)


def test_smelu_with_parameters_of_the_general_quadratic() -> None:
    # Left slope 0, right slope 1, joints at -1 and 1, value 0 at the left one: a x^2 + b x + c.
    a, b, c = 1 / 4, 1 / 2, 1 / 4
    z = np.linspace(-1, 1, 9)
    value, _ = value_and_slope(list(z), 1.0, compiled=False)
    np.testing.assert_allclose(value, a * z**2 + b * z + c, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
def test_without_a_bend_each_is_relu(name: str) -> None:
    z = tf.constant(np.linspace(-2, 2, 41), tf.float32)
    np.testing.assert_allclose(activation(name, 1e-4)(z), tf.nn.relu(z), atol=1e-4)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_wider_bend_smooths_more(name: str) -> None:
    z = tf.constant(np.linspace(-2, 2, 401), tf.float32)

    def sharpest(beta: float) -> float:
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = activation(name, beta)(z)
        return float(np.abs(np.diff(tape.gradient(y, z))).max())

    assert sharpest(0.1) > 1.5 * sharpest(0.5) > 2 * sharpest(2.0)


@pytest.mark.parametrize("model", [WideDcn(), Mlp(), Dlrm()])
def test_it_applies_to_every_deep_model_and_inside_wrappers(model) -> None:
    recipe = Recipe(model=model)
    plain = compose(recipe, [Smelu(0.25)]).model
    assert (plain.activation, plain.beta) == ("smelu", 0.25)
    assert type(plain) is type(model)
    wrapped = compose(recipe, [EnsembleModule(2), Smelu(0.25)]).model
    assert wrapped == compose(recipe, [Smelu(0.25), EnsembleModule(2)]).model
    assert compose(recipe, [HiddenActivation("relu", 1.0)]).model == model


def test_bad_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="beta, the width of its bend, must be above 0"):
        Smelu(0.0)
    with pytest.raises(ConfigError, match="did you mean 'swish'"):
        HiddenActivation("swihs")
    with pytest.raises(ModuleError, match="Linear has none"):
        compose(Recipe(model=Linear()), [Smelu()])
