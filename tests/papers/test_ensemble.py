from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Batch, Forward
from ctr.calibration import NoCalibration
from ctr.config import from_plain, to_plain
from ctr.data.examples import Chunk
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.losses import LogLoss
from ctr.models import Ensemble, Linear, WideDcn
from ctr.models.ensemble import mean_logits
from ctr.module import compose
from ctr.parts import known_parts
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.anti_distillation import AntiDistillation
from ctr.techniques.ensemble import EnsembleModule, MembersLoss

SCHEMA = Schema(
    "tiny",
    (Feature("a", "categorical"), Feature("b", "categorical"), Feature("n", "numeric")),
    (Label("click"),),
)
TINY = Recipe(
    model=WideDcn(dim=4, hidden=(8,), cross_layers=1, cross_rank=2),
    calibrator=NoCalibration(), batch_size=16, table_rows=256,
)  # fmt: skip


@pytest.fixture(scope="module")
def single() -> Learner:
    return Learner(TINY, SCHEMA, seed=3)


def chunks(learner: Learner, n: int) -> list[Chunk]:
    k, b = learner.chunk_shape
    rng = np.random.default_rng(0)
    shape = (n, k, b)
    ids = rng.integers(1, 256, size=(*shape, 2)).astype(np.int32)
    numeric = rng.normal(size=(*shape, 1)).astype(np.float32)
    score = np.sin(ids.sum(axis=-1)) + numeric[..., 0] - 1
    labels = (rng.random(shape) < 1 / (1 + np.exp(-score))).astype(np.float32)[..., None]
    weights = (rng.random(shape) < 0.9).astype(np.float32)
    parts = zip(ids, numeric, labels, weights, strict=True)
    return [Chunk(*part, {}) for part in parts]


def logits(prob: np.ndarray) -> np.ndarray:
    prob = prob.astype(np.float64)
    return np.log(prob) - np.log1p(-prob)


def start_as(single: Learner, member: object, table: tuple[np.ndarray, np.ndarray]) -> None:
    """Puts a new single learner into the initial state of a member."""
    fresh = Learner(TINY, SCHEMA, seed=3)
    for variable, value in zip(single.variables, fresh.variables, strict=True):
        variable.assign(value)
    pairs = zip(single.model.variables, member.variables, strict=True)
    for variable, value in pairs:
        variable.assign(value)
    single.table.embedding.assign(table[0])
    single.table.wide.assign(table[1])


@pytest.mark.parametrize("mean", ["prob", "logit"])
def test_members_learn_what_they_would_learn_alone(single: Learner, mean: str) -> None:
    recipe = compose(TINY, [EnsembleModule(2, mean)])
    both = Learner(recipe, SCHEMA, seed=3)
    stream = chunks(both, 2)
    alone = []
    for i, member in enumerate(both.model.members):
        columns = both.table.embedding.numpy()[:, 4 * i : 4 * i + 4]
        start_as(single, member, (columns, both.table.wide.numpy()[:, i : i + 1]))
        alone.append([single.learn(chunk) for chunk in stream])
    assert np.abs(logits(alone[0][-1]) - logits(alone[1][-1])).max() > 0.01
    found = [both.learn(chunk) for chunk in stream]
    for got, first, second in zip(found, *alone, strict=True):
        if mean == "prob":
            np.testing.assert_allclose(got, (first + second) / 2, atol=2e-5)
        else:
            expected = (logits(first) + logits(second)) / 2
            np.testing.assert_allclose(logits(got), expected, atol=2e-4)


def test_one_member_is_the_model_alone(single: Learner) -> None:
    one = Learner(compose(TINY, [EnsembleModule(1)]), SCHEMA, seed=3)
    start_as(single, one.model.members[0], (one.table.embedding.numpy(), one.table.wide.numpy()))
    for chunk in chunks(one, 2):
        np.testing.assert_array_equal(one.learn(chunk), single.learn(chunk))
    assert one.n_parameters() == single.n_parameters()


def test_the_first_member_starts_as_the_model_alone() -> None:
    layout = Learner(TINY, SCHEMA, seed=3)
    both = Learner(compose(TINY, [EnsembleModule(2)]), SCHEMA, seed=3)
    first, second = both.model.members
    kernels = [m.hidden[0].kernel.numpy() for m in (layout.model, first, second)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).any()


def test_mean_of_probabilities_is_taken_in_log_space() -> None:
    members = tf.constant([[[-3.0], [2.0], [-60.0]], [[1.0], [2.0], [-60.0]]])
    prob = tf.sigmoid(mean_logits(members, "prob")).numpy()
    expected = tf.reduce_mean(tf.sigmoid(members), axis=0).numpy()
    np.testing.assert_allclose(prob, expected, rtol=1e-5)
    np.testing.assert_allclose(mean_logits(members, "prob")[2], [-60.0], atol=1e-4)
    np.testing.assert_allclose(mean_logits(members, "logit")[:, 0], [-1.0, 2.0, -60.0])


def test_calibration_shifts_every_member_and_is_no_part_of_their_gradient() -> None:
    members = tf.Variable([[[-1.0], [0.5]], [[1.0], [0.0]]])
    batch = Batch(
        tf.zeros([2, 1], tf.int32), tf.zeros([2, 0]), tf.constant([[1.0], [0.0]]), tf.ones([2]),
        {}, tf.zeros([], tf.int64),
    )  # fmt: skip
    with tf.GradientTape() as tape:
        mean = mean_logits(members, "logit")
        forward = Forward(mean + 0.7, {"members": members, "mean": mean})
        losses = MembersLoss()(forward, batch)
    gradient = tape.gradient(losses, members)
    shifted = members + 0.7
    np.testing.assert_allclose(gradient, tf.sigmoid(shifted) - batch.labels[None], atol=1e-6)
    parts = [LogLoss()(Forward(shifted[i], {}), batch) for i in range(2)]
    np.testing.assert_allclose(losses, parts[0] + parts[1], atol=1e-6)


def test_wide_models_can_be_members_too() -> None:
    recipe = compose(replace(TINY, model=Linear()), [EnsembleModule(2)])
    learner = Learner(recipe, SCHEMA, seed=0)
    assert learner.table.wide.shape == (256, 2)
    assert len(learner.model.wide.trainable_variables) == 6


def test_it_comes_back_from_a_run_folder() -> None:
    recipe = compose(TINY, [EnsembleModule(2), AntiDistillation()])
    plain = json.loads(json.dumps(to_plain(recipe)))
    assert from_plain(plain, known_parts()) == recipe


def test_bad_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="at least 1 member, received 0"):
        EnsembleModule(0)
    with pytest.raises(ConfigError, match="prob or logit"):
        Ensemble(WideDcn(), 2, "median")
