"""LocoProp: the first local step is BackProp, closed forms, convexity, and inertness."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import DenseLayer, Layered
from ctr.bench.planted import SCHEMA, TABLE_ROWS, planted_stream, progressive_losses
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import Dlrm, Linear, Mlp
from ctr.models.activations import activation
from ctr.module import compose
from ctr.optimizers import KerasOptimizer, Optimizers
from ctr.recipe import Recipe
from ctr.testing import module_checks
from research_modules.eg_step_size import EgStepSize
from research_modules.locoprop import LocalRule, LocoProp
from research_modules.locoprop.autoencoder import Autoencoder
from research_modules.locoprop.local import LocalProblem, LocalState

SGD = Optimizers(tower=KerasOptimizer("SGD", 0.5))
RECIPE = Recipe(model=Mlp(dim=4, hidden=(8, 8)), optimizer=SGD, batch_size=64,
                table_rows=TABLE_ROWS)  # fmt: skip
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 5)).astype(np.float32)
ERRORS = (0.1 * RNG.normal(size=(32, 3))).astype(np.float32)
FUNCTIONS = {"relu": tf.nn.relu, "tanh": tf.tanh, "sigmoid": tf.sigmoid, "identity": tf.identity,
             "smelu": activation("smelu", 0.5)}  # fmt: skip
#: Potentials F with F' = f, in float64.
POTENTIALS = {
    "relu": lambda a: np.maximum(a, 0) ** 2 / 2,
    "tanh": lambda a: np.abs(a) + np.log1p(np.exp(-2 * np.abs(a))) - np.log(2),
    "sigmoid": lambda a: np.logaddexp(0, a),
    "identity": lambda a: a**2 / 2,
}


@pytest.mark.parametrize("check", module_checks(LocoProp(steps=3)), ids=str)
def test_contract(check):
    check()


def problem(rule, function="relu", errors=ERRORS, weights=None, offset=None):
    start = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    kernel, bias = tf.Variable(start), tf.Variable([0.1, 0.0, -0.1])
    z = tf.matmul(X, kernel) + bias
    layer = DenseLayer(kernel, bias, FUNCTIONS[function], tf.constant(X), z)
    weights = tf.ones([32]) if weights is None else tf.constant(weights, tf.float32)
    return LocalProblem(rule, layer, tf.constant(errors), weights, offset)


def solve(rule, one, rate):
    variables = [one.layer.kernel, one.layer.bias]
    state = LocalState(rule, KerasOptimizer("SGD", rate).build(variables), variables, 1)
    state.learn([one])
    return state


@pytest.mark.parametrize("mode", ["matching", "squared"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_first_local_gradient_is_gamma_times_backprop(mode, function):
    one = problem(LocalRule(mode, gamma=0.7), function)
    for kernel, bias in (one.first_gradients(), one.gradients(one.residual(one.forward()))):
        np.testing.assert_allclose(kernel, 0.7 * X.T @ ERRORS / 32, atol=1e-6)
        np.testing.assert_allclose(bias, 0.7 * ERRORS.sum(0) / 32, atol=1e-6)


def test_the_two_modes_agree_where_the_activation_is_the_identity():
    found = []
    for mode in ("matching", "squared"):
        rule = LocalRule(mode, steps=6)
        one = problem(rule, "identity")
        solve(rule, one, 0.2)
        found.append(one.layer.kernel.numpy())
    np.testing.assert_array_equal(*found)


def test_many_squared_steps_solve_least_squares():
    rule = LocalRule("squared", steps=400, floor=1.0)
    one = problem(rule)
    target = one.layer.preactivation.numpy() - ERRORS
    solve(rule, one, 0.5)
    inputs = np.c_[X, np.ones(32)]
    expected = np.linalg.lstsq(inputs, target, rcond=None)[0]
    np.testing.assert_allclose(one.layer.kernel.numpy(), expected[:5], atol=1e-4)
    np.testing.assert_allclose(one.layer.bias.numpy(), expected[5], atol=1e-4)


def test_at_a_logistic_output_the_local_optimum_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    logits = X @ np.array([1.0, -1.0, 0.5, 0.0, 0.3])
    labels = (RNG.random(32) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    kernel, bias = tf.Variable(tf.zeros([5, 1])), tf.Variable([0.0])
    errors = 0.5 - labels[:, None]
    layer = DenseLayer(kernel, bias, tf.sigmoid, tf.constant(X), tf.zeros([32, 1]))
    rule = LocalRule(steps=400, floor=1.0)
    solve(rule, LocalProblem(rule, layer, tf.constant(errors), tf.ones([32])), 4.0)
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(X, labels)
    np.testing.assert_allclose(kernel.numpy()[:, 0], theirs.coef_[0], atol=2e-2)


@pytest.mark.parametrize("function", POTENTIALS)
def test_the_change_of_the_matching_loss_is_that_of_its_potential(function):
    one = problem(LocalRule(), function)
    old = one.layer.preactivation.numpy().astype(np.float64)
    target = FUNCTIONS[function](one.layer.preactivation).numpy() - ERRORS
    potential = POTENTIALS[function]
    changes = []
    for size in (0.02, 0.2):
        new = old + size * np.random.default_rng(2).normal(size=old.shape)
        exact = (potential(new) - potential(old) - target * (new - old)).sum()
        changes.append((float(one.change(tf.constant(new, tf.float32))), exact))
    for ours, exact in changes:
        assert ours == pytest.approx(exact, rel=0.03, abs=2e-4)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_matching_loss_is_convex_even_for_targets_out_of_range(function):
    one = problem(LocalRule(gamma=30.0), function)
    rng = np.random.default_rng(3)
    for _ in range(20):
        a, b = (tf.constant(rng.normal(size=(32, 3)), tf.float32) for _ in range(2))
        # Monotone residuals are what makes an objective convex.
        assert float(tf.reduce_sum((a - b) * (one.residual(a) - one.residual(b)))) >= -1e-5


@pytest.mark.parametrize("mode", ["matching", "squared"])
def test_small_steps_never_raise_the_local_loss(mode):
    rule = LocalRule(mode, steps=1)
    one = problem(rule, "tanh", 3.0 * ERRORS)
    rate = 0.9 * 32 / np.linalg.eigvalsh(np.c_[X, np.ones(32)].T @ np.c_[X, np.ones(32)])[-1]
    values = []
    for _ in range(15):
        z = one.forward()
        values.append(float(one.change(z)))
        for variable, gradient in zip(
            (one.layer.kernel, one.layer.bias), one.gradients(one.residual(z)), strict=True
        ):
            variable.assign_sub(rate * gradient)
    assert (np.diff(values) <= 1e-6).all()
    assert values[-1] < 0


def test_steps_that_raise_the_local_loss_are_taken_back_to_the_first():
    rule, plain = LocalRule("squared", steps=8, floor=1.0), LocalRule("squared", steps=1)
    wild, first = problem(rule), problem(plain)
    state = solve(rule, wild, 30.0)
    solve(plain, first, 30.0)
    np.testing.assert_array_equal(wild.layer.kernel.numpy(), first.layer.kernel.numpy())
    assert state.fallbacks.numpy().tolist() == [1]
    assert solve(rule, problem(rule), 0.1).fallbacks.numpy().tolist() == [0]


def test_rows_of_weight_zero_and_gamma_zero_teach_nothing():
    weights = np.where(np.arange(32) < 20, 1.0, 0.0)
    found = []
    for filler in (0.0, 7.0):
        rule = LocalRule(steps=5)
        one = problem(rule, "relu", (ERRORS.T * weights).T.astype(np.float32), weights)
        padded = np.where(weights[:, None] > 0, X, filler).astype(np.float32)
        layer = one.layer._replace(
            inputs=tf.constant(padded),
            preactivation=tf.matmul(padded, one.layer.kernel) + one.layer.bias,
        )
        one = LocalProblem(rule, layer, one._first, tf.constant(weights, tf.float32))
        solve(rule, one, 0.3)
        found.append(one.layer.kernel.numpy())
    np.testing.assert_array_equal(*found)
    still = problem(LocalRule(gamma=0.0))
    before = still.layer.kernel.numpy()
    solve(LocalRule(gamma=0.0), still, 0.3)
    np.testing.assert_array_equal(before, still.layer.kernel.numpy())


def learned(recipe):
    learner = Learner(recipe, SCHEMA, 1, n_batches=8)
    progressive_losses(recipe, planted_stream(1024, 0), 1, learner)
    return learner


def test_one_local_step_is_backprop():
    plain, local = learned(RECIPE), learned(compose(RECIPE, [LocoProp(steps=1)]))
    for ours, theirs in zip(
        (*local.model.variables, *local.table.variables),
        (*plain.model.variables, *plain.table.variables),
        strict=True,
    ):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-6)


def test_forward_lists_the_layers_of_every_deep_model():
    for model in (Mlp(dim=4, hidden=(8, 6)), Dlrm(dim=4, hidden=(8,), bottom=())):
        assert isinstance(model, Layered)
    assert not isinstance(Linear(), Layered)


def test_it_learns_a_stream_faster_than_backprop_does():
    """Larger batches leave more to be gained by using each of them longer."""
    base = dataclasses.replace(
        RECIPE,
        optimizer=Optimizers(tower=KerasOptimizer("RMSprop", 3e-3)),
        batch_size=256, model=Mlp(dim=8, hidden=(32, 16)),
    )  # fmt: skip
    stream = planted_stream(65_536, 0)
    plain, local = (
        progressive_losses(recipe, stream, 1).mean()
        for recipe in (base, compose(base, [LocoProp()]))
    )
    assert local < plain


def test_matching_beats_backprop_on_the_autoencoder():
    runs = {
        steps: Autoencoder(425, epochs=12, rule=LocalRule(steps=steps, gamma=0.1)).run(2e-3, 0)
        for steps in (1, 4)
    }
    assert runs[4][-1] < 0.9 * runs[1][-1]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModuleError, match="Linear"):
        compose(dataclasses.replace(RECIPE, model=Linear()), [LocoProp()])
    swish = dataclasses.replace(RECIPE, model=Mlp(dim=4, hidden=(8,), activation="swish"))
    with pytest.raises(ModuleError, match="convex"):
        compose(swish, [LocoProp()])
    assert compose(swish, [LocoProp(mode="squared")])
    for stack in ([LocoProp(), EgStepSize()], [EgStepSize(), LocoProp()]):
        with pytest.raises(ModuleError, match="eg_step_size"):
            compose(RECIPE, stack)


@pytest.mark.parametrize(
    "wrong", [{"mode": "exact"}, {"steps": 0}, {"gamma": -1.0}, {"floor": 1.5}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LocoProp(**wrong)
