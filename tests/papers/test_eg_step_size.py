"""Step sizes by exponentiated gradients: closed forms, reductions, and a mis-set rate made good."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from ctr.bench.planted import SCHEMA, TABLE_ROWS, planted_stream, progressive_losses
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.optimizers import AdaGrad, Ftrl, KerasOptimizer, Optimizers
from ctr.recipe import Recipe
from ctr.testing import module_checks
from research_modules.eg_step_size import EgStepSize
from research_modules.eg_step_size.digits import study
from research_modules.eg_step_size.scale import EgScale, ScaleState
from research_modules.eg_step_size.shift import sweep

CHECKED = EgStepSize(gain_rate=0.01)
RECIPE = Recipe(model=Mlp(dim=4, hidden=(8,)), batch_size=64, table_rows=TABLE_ROWS)


@pytest.mark.parametrize("check", module_checks(CHECKED), ids=str)
def test_contract(check):
    check()


class Walk:
    """Steps of plain SGD (or with momentum) under a scale, with gradients from outside."""

    def __init__(self, config, shape=(3,), eta=0.1, start=0.0, momentum=0.0):
        self.weights = tf.Variable(tf.fill(shape, start))
        self.state = ScaleState(config, [self.weights])
        self.base = KerasOptimizer("SGD", eta, momentum=momentum).build([self.weights])

    def step(self, gradient):
        return float(self.state.step([tf.constant(gradient, tf.float32)], self.base.apply))


G = np.array([0.3, -0.2, 0.1])


@pytest.mark.parametrize("rule", ["cosine", "raw"])
def test_a_constant_gradient_lets_the_scale_grow_in_closed_form(rule):
    rate, eta = 0.2, 0.1
    walk = Walk(EgScale(rate=rate, memory=0.0, rule=rule), eta=eta)
    found = [walk.step(G) for _ in range(6)]
    per_step = rate if rule == "cosine" else rate * eta * float(G @ G)
    np.testing.assert_allclose(found, np.exp(per_step * np.arange(6)), rtol=1e-5)


def test_an_alternating_gradient_lets_it_fall():
    walk = Walk(EgScale(rate=0.2, memory=0.0))
    found = [walk.step(G * (-1) ** t) for t in range(6)]
    np.testing.assert_allclose(found, np.exp(-0.2 * np.arange(6)), rtol=1e-5)


def test_the_papers_form_with_momentum_by_hand():
    """Scale after the buffer, gains before it; both by old averages and new gradients."""
    rng = np.random.default_rng(0)
    eta, mu, beta, rate, gain_rate = 0.05, 0.9, 0.9, 0.5, 0.3
    config = EgScale(rate=rate, memory=0.0, rule="raw", gain_rate=gain_rate, gain_memory=beta,
                     gain_rule="raw")  # fmt: skip
    walk = Walk(config, eta=eta, momentum=mu)
    theta, p, s, m, h = np.zeros(3), np.ones(3), 1.0, np.zeros(3), np.zeros(3)
    for _ in range(8):
        g = rng.normal(size=3)
        p = p * np.exp(gain_rate * m * g)
        s = s * math.exp(rate * h @ g)
        m = beta * m + (1 - beta) * g
        h = mu * h + eta * p * g
        theta = theta - s * h
        assert walk.step(g) == pytest.approx(s, rel=1e-4)
        np.testing.assert_allclose(walk.weights.numpy(), theta, rtol=1e-4, atol=1e-6)


def test_gains_without_memory_are_the_product_of_neighbours():
    config = EgScale(rate=0.0, gain_rate=0.5, gain_memory=0.0, gain_rule="raw")
    walk = Walk(config)
    series = np.random.default_rng(1).normal(size=(7, 3))
    for g in series:
        walk.step(g)
    expected = np.clip(0.5 * series[:-1] * series[1:], -1, 1).sum(0)
    np.testing.assert_allclose(walk.state.log_gains[0].numpy(), expected, rtol=1e-5)


def test_wild_gradients_keep_scale_and_gains_within_their_bounds():
    walk = Walk(EgScale(rule="raw", rate=1.0, gain_rate=1.0, gain_rule="raw"), eta=1e-3)
    rng = np.random.default_rng(2)
    for _ in range(300):
        scale = walk.step(1e3 * rng.normal(size=3))
        assert 0.999e-3 <= scale <= 1.001e3
    gains = np.exp(walk.state.log_gains[0].numpy())
    assert (gains > 0.0999).all()
    assert (gains < 10.001).all()


@pytest.mark.parametrize("start", [1e-2, 1.9])
def test_on_a_parabola_it_walks_to_newtons_step(start):
    curvature = 3.0
    walk = Walk(EgScale(rate=0.1, memory=0.0), (1,), start / curvature, 1.0)
    for _ in range(80):
        if abs(walk.weights.numpy()[0]) < 1e-30:
            break
        scale = walk.step(curvature * walk.weights.numpy())
    assert abs(math.log(scale * start)) < 0.21


def test_a_rotation_of_the_weights_changes_nothing():
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    ours, theirs = Walk(EgScale()), Walk(EgScale())
    for g in np.random.default_rng(4).normal(size=(10, 3)):
        assert ours.step(g) == pytest.approx(theirs.step(rotation @ g), rel=1e-5)


def test_a_loss_in_other_units_changes_nothing_for_one_step_of_sgd():
    for factor in (1e-6, 1.0, 1e6):
        walk = Walk(EgScale(memory=0.0))
        walk.step(factor * G)
        assert walk.step(factor * np.array([0.1, 0.1, 0.1])) == pytest.approx(
            math.exp(0.1 * G.sum() / np.linalg.norm(G) / 3**0.5), rel=1e-5
        )


def test_a_batch_without_a_gradient_or_with_nan_leaves_the_state_alone():
    walk = Walk(EgScale(gain_rate=0.01))
    walk.step(G)
    walk.step(G)
    state = walk.state
    kept = [state.log_scale, *state.directions, *state.averages, *state.log_gains]
    before = [v.numpy() for v in kept]
    for bad in (0.0 * G, np.nan * G):
        walk.step(bad)
        for old, new in zip(before, kept, strict=True):
            np.testing.assert_array_equal(old, new.numpy())


def learned(recipe, scale=None):
    learner = Learner(recipe, SCHEMA, 1, n_batches=8)
    if scale is not None:
        for state in learner.update.scales:
            state.log_scale.assign(math.log(scale))
    progressive_losses(recipe, planted_stream(2048, 0), 1, learner)
    return learner


@pytest.fixture(scope="module")
def plain():
    return learned(RECIPE)


@pytest.fixture(scope="module")
def held():
    return learned(compose(RECIPE, [EgStepSize(rate=0.0)]), 4.0)


@pytest.mark.parametrize("scope", ["global", "group"])
def test_rate_zero_is_the_base_bit_for_bit(scope, plain):
    scaled = learned(compose(RECIPE, [EgStepSize(rate=0.0, scope=scope)]))
    for name in ("table", "model"):
        for ours, theirs in zip(
            getattr(scaled, name).variables, getattr(plain, name).variables, strict=True
        ):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.name)


def test_a_held_scale_is_another_rate_for_every_variable(held):
    """AdaGrad's slots do not depend on its rate, so a scale of 4 is four times the rate."""
    usual = RECIPE.optimizer
    faster = Optimizers(*(
        dataclasses.replace(one, rate=4.0 * one.rate)
        for one in (usual.embedding, usual.linear, usual.head, usual.tower)
    ))  # fmt: skip
    direct = learned(dataclasses.replace(RECIPE, optimizer=faster))
    for name in ("table", "model"):
        for ours, theirs in zip(
            getattr(held, name).variables, getattr(direct, name).variables, strict=True
        ):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=5e-3, atol=5e-4)


def test_without_tables_the_rows_take_plain_steps(held):
    alone = learned(compose(RECIPE, [EgStepSize(rate=0.0, tables=False)]), 4.0)
    assert np.abs(held.table.wide.numpy()).sum() > 2 * np.abs(alone.table.wide.numpy()).sum()


def test_mis_set_rates_are_made_good():
    slow = dataclasses.replace(
        RECIPE,
        optimizer=Optimizers(
            AdaGrad(1e-3), AdaGrad(1.5e-3, 1.0, split_rate=True),
            KerasOptimizer(rate=2e-3), KerasOptimizer(rate=2e-4),
        ),
    )  # fmt: skip
    stream = planted_stream(32_768, 0)
    plain, scaled = (
        progressive_losses(recipe, stream, 1).mean()
        for recipe in (slow, compose(slow, [EgStepSize()]))
    )
    # A hundred times the rate gains 0.04 here: half of that comes without anyone's choice.
    assert plain - scaled > 0.02


def test_rates_three_decades_apart_do_alike_and_a_shift_raises_the_scale():
    found = sweep(("eg",), (1e-4, 1e-1), [planted_stream(102_400, 0, 51_200)])["eg"]
    (low,), (high,) = found
    assert abs(low.losses.mean() / high.losses.mean() - 1.0) < 0.05
    assert low.rise > 1.2
    assert low.scales[-1] > 10 * high.scales[-1]


def test_rotating_digits_are_learned_at_any_rate_and_the_scale_rises_at_a_change():
    passes = study(("constant", "eg"), batches=100)
    loss = {
        (name, rate): one.run(rate, 0)[0].mean()
        for name, one in passes.items()
        for rate in (1e-3, 3e-2)
    }
    assert loss["constant", 1e-3] > 2 * loss["eg", 1e-3]
    assert loss["eg", 1e-3] < 2 * loss["eg", 3e-2]
    scale = passes["eg"].run(1e-2, 0)[2]
    assert scale[100:150].max() > 1.5 * scale[99]


def test_what_cannot_be_scaled_is_refused():
    module = EgStepSize()
    scaled = compose(RECIPE, [module])
    with pytest.raises(ModuleError, match="EgUpdate"):
        compose(scaled, [module])
    ftrl = dataclasses.replace(RECIPE, optimizer=Optimizers(linear=Ftrl()))
    with pytest.raises(ModuleError, match="FTRL"):
        compose(ftrl, [module])
    assert compose(ftrl, [EgStepSize(tables=False)])
    decayed = Optimizers(tower=KerasOptimizer("AdamW", weight_decay=0.1))
    with pytest.raises(ModuleError, match="weight decay"):
        compose(dataclasses.replace(RECIPE, optimizer=decayed), [module])


@pytest.mark.parametrize(
    "wrong",
    [{"rate": -1.0}, {"memory": 1.0}, {"rule": "sign"}, {"scope": "layer"}, {"lowest": 2.0},
     {"gain_rate": -0.1}, {"gain_rule": "row"}, {"gain_memory": -0.5}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EgStepSize(**wrong)
