from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Batch
from ctr.calibration import NoCalibration, SliceBias
from ctr.encoding.layout import layout_of
from ctr.schema import Feature, Label, Schema

SIZE = 256


@pytest.fixture
def schema() -> Schema:
    features = (Feature("a"), Feature("b"), Feature("words", kind="bag", max_length=2))
    return Schema("sliced", features, (Label("click"),), slices=("b",))


def batches(bias: np.ndarray, n: int) -> list[tuple[tf.Tensor, Batch]]:
    """Model logits and labels whose true logits differ by ``bias[value of b]``."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        ids = rng.integers(0, len(bias), (SIZE, 4)).astype(np.int32)
        logits = rng.normal(-1.0, 0.7, (SIZE, 1)).astype(np.float32)
        prob = 1.0 / (1.0 + np.exp(-(logits[:, 0] + bias[ids[:, 1]])))
        labels = (rng.random(SIZE) < prob).astype(np.float32)[:, None]
        weights = tf.ones([SIZE])
        batch = Batch(tf.constant(ids), tf.zeros([SIZE, 0]), labels, weights, {}, tf.constant(0))
        made.append((tf.constant(logits), batch))
    return made


def test_it_recovers_the_bias_of_each_slice(schema: Schema) -> None:
    bias = np.array([0.8, -0.5, 0.0])
    state = SliceBias().build(layout_of(schema), schema.slices, 1)
    learn = tf.function(state.learn)
    for logits, batch in batches(bias, 150):
        learn(logits, batch)
    logits, batch = batches(bias, 1)[0]
    moved = (state(logits, batch.ids) - logits).numpy()[:, 0]
    np.testing.assert_allclose(moved, bias[batch.ids.numpy()[:, 1]], atol=0.15)


def test_a_huge_prior_leaves_the_logits(schema: Schema) -> None:
    state = SliceBias(prior=1e12).build(layout_of(schema), schema.slices, 1)
    made = batches(np.array([2.0, -2.0]), 5)
    for logits, batch in made:
        state.learn(logits, batch)
    logits, batch = made[0]
    np.testing.assert_allclose(state(logits, batch.ids), logits, atol=1e-6)


def test_unknown_labels_and_weight_0_teach_nothing(schema: Schema) -> None:
    state = SliceBias().build(layout_of(schema), schema.slices, 1)
    logits, batch = batches(np.array([2.0, -2.0]), 1)[0]
    state.learn(logits, batch._replace(labels=-tf.ones_like(batch.labels)))
    state.learn(logits, batch._replace(weights=tf.zeros_like(batch.weights)))
    np.testing.assert_array_equal(state(logits, batch.ids), logits)
    state.learn(logits, batch)
    assert np.abs(state(logits, batch.ids) - logits).max() > 0.01


@pytest.mark.parametrize("config", [NoCalibration(), SliceBias()])
def test_without_slices_logits_pass_through(
    config: NoCalibration | SliceBias, schema: Schema
) -> None:
    state = config.build(layout_of(schema), (), 1)
    logits, batch = batches(np.array([2.0]), 1)[0]
    state.learn(logits, batch)
    np.testing.assert_array_equal(state(logits, batch.ids), logits)
