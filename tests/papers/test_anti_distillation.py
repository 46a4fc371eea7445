from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Batch, Forward
from ctr.errors import ConfigError, ModuleError
from ctr.models import WideDcn
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schedules import Ramp
from ctr.techniques.anti_distillation import AntiDistillation, Decorrelated, correlation_penalty
from ctr.techniques.ensemble import EnsembleModule, MembersLoss

RNG = np.random.default_rng(0)
MEMBERS = tf.constant(RNG.normal(size=(3, 50, 2)).cumsum(axis=0), tf.float32)


def batch(seen: int = 0) -> Batch:
    labels = tf.constant(RNG.integers(0, 2, size=(50, 2)), tf.float32)
    return Batch(
        tf.zeros([50, 1], tf.int32), tf.zeros([50, 0]), labels, tf.ones([50]), {},
        tf.constant(seen, tf.int64),
    )  # fmt: skip


def forward(members: tf.Tensor) -> Forward:
    mean = tf.reduce_mean(members, axis=0)
    return Forward(mean, {"members": members, "mean": mean})


def squared_correlations(members: np.ndarray) -> float:
    return sum(
        np.corrcoef(members[i, :, t], members[j, :, t])[0, 1] ** 2
        for i, j in ((0, 1), (0, 2), (1, 2))
        for t in range(members.shape[2])
    )


def test_the_penalty_is_the_squared_correlation_of_all_pairs() -> None:
    found = float(correlation_penalty(MEMBERS, tf.ones([50, 2])))
    assert found == pytest.approx(squared_correlations(MEMBERS.numpy()), rel=1e-3)
    same = tf.stack([MEMBERS[0]] * 3)
    assert float(correlation_penalty(same, tf.ones([50, 2]))) == pytest.approx(6.0, rel=1e-3)


def test_examples_without_weight_do_not_count() -> None:
    weights = tf.constant([[1.0, 1.0]] * 30 + [[0.0, 0.0]] * 20)
    found = float(correlation_penalty(MEMBERS, weights))
    assert found == pytest.approx(squared_correlations(MEMBERS.numpy()[:, :30]), rel=1e-3)


def test_it_is_finite_where_members_are_constant_or_the_batch_is_empty() -> None:
    for members, weights in (
        (tf.zeros([3, 50, 2]), tf.ones([50, 2])),
        (MEMBERS, tf.zeros([50, 2])),
    ):
        variable = tf.Variable(members)
        with tf.GradientTape() as tape:
            penalty = correlation_penalty(variable, weights)
        assert float(penalty) == 0.0
        assert np.isfinite(tape.gradient(penalty, variable).numpy()).all()


@pytest.mark.parametrize("loss", [Decorrelated(MembersLoss(), 0.0),
                                  Decorrelated(MembersLoss(), 1.0, Ramp(100.0))])  # fmt: skip
def test_without_strength_or_before_the_ramp_it_is_the_ensemble(loss: Decorrelated) -> None:
    data = batch(seen=0)
    expected = MembersLoss()(forward(MEMBERS), data)
    np.testing.assert_array_equal(loss(forward(MEMBERS), data), expected)


def descend(loss: Decorrelated | MembersLoss, data: Batch) -> np.ndarray:
    members = tf.Variable(MEMBERS)

    @tf.function
    def steps() -> None:
        for _ in tf.range(100):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(loss(forward(members), data))
            members.assign_sub(0.05 * tape.gradient(total, members))

    steps()
    return members.numpy()


@pytest.mark.parametrize("of", ["error", "logit"])
def test_it_pushes_members_apart(of: str) -> None:
    data = batch()

    def together(members: np.ndarray) -> float:
        outputs = 1 / (1 + np.exp(-members)) - data.labels.numpy() if of == "error" else members
        return squared_correlations(outputs)

    alone = together(descend(MembersLoss(), data))
    pushed = together(descend(Decorrelated(MembersLoss(), 3.0, of=of), data))
    assert pushed < 0.8 * alone


def test_members_that_agree_are_not_pushed_from_the_truth() -> None:
    """Equal members err equally, and the penalty of their errors is flat there."""
    data, same = batch(), tf.stack([MEMBERS[0]] * 3)

    def push(of: str) -> float:
        variable = tf.Variable(same)
        with tf.GradientTape() as tape:
            loss = Decorrelated(MembersLoss(), 1.0, of=of)(forward(variable), data)
            plain = MembersLoss()(forward(variable), data)
            added = tf.reduce_sum(loss - plain)
        return float(tf.reduce_max(tf.abs(tape.gradient(added, variable))))

    floor = 1e-2  # the floor under the variance leaves a trace of a slope
    assert push("error") < floor


def test_unknown_labels_have_no_error() -> None:
    data = batch()
    labels = tf.concat([data.labels[:30], -tf.ones([20, 2])], axis=0)
    found = Decorrelated(MembersLoss(), 1.0)(forward(MEMBERS), data._replace(labels=labels))
    known = data._replace(labels=data.labels[:30], weights=tf.ones([30]))
    part = Decorrelated(MembersLoss(), 1.0)(forward(MEMBERS[:, :30]), known)
    np.testing.assert_allclose(found[:30], part, rtol=1e-5)


def test_it_goes_on_top_of_an_ensemble_only() -> None:
    recipe = compose(Recipe(), [EnsembleModule(3), AntiDistillation(0.02, 10)])
    assert recipe.loss == Decorrelated(MembersLoss(), 0.02, Ramp(10.0))
    for modules in ([AntiDistillation()], [EnsembleModule(1), AntiDistillation()]):
        with pytest.raises(ModuleError, match=r'Put \{use = "ensemble"'):
            compose(Recipe(), modules)
    later = replace(recipe, model=WideDcn())
    assert not isinstance(later.model, AntiDistillation.info.needs)


def test_bad_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        AntiDistillation(strength=-1.0)
    with pytest.raises(ConfigError, match="error or logit"):
        AntiDistillation(of="weights")
