"""Corrections: weights add up to the gradient of the truth; the bias of plain ones shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Batch
from ctr.errors import ConfigError, ModuleError
from ctr.module import compose
from ctr.techniques.late_labels import LateLabels, LateLabelSampler
from ctr.testing.stream import tiny_recipe


def batch(labels, again, n_tasks: int = 1) -> Batch:
    n = len(labels)
    y = np.asarray(labels, np.float32).reshape(n, n_tasks)
    side = {"correction": tf.constant(np.asarray(again, np.int32))}
    empty = tf.zeros([n, 0])
    return Batch(tf.zeros([n, 0], tf.int32), empty, tf.constant(y), tf.ones([n]), side,
                 tf.zeros([], tf.int64))  # fmt: skip


def weights(sampler: LateLabelSampler, rows: Batch, probs) -> np.ndarray:
    p = np.asarray(probs, np.float32).reshape(rows.labels.shape)
    return sampler(rows, tf.constant(np.log(p / (1 - p)))).weights.numpy()


def test_importance_takes_the_false_negative_back():
    rows, p = batch([0, 1, 1], [0, 1, 0]), [0.3, 0.3, 0.3]
    w = weights(LateLabelSampler(), rows, p)
    gradient = w * (np.array(p) - rows.labels.numpy()[:, 0])
    np.testing.assert_allclose(gradient[0] + gradient[1], 0.3 - 1.0, rtol=1e-5)
    np.testing.assert_allclose(w[[0, 2]], 1.0)


def test_importance_uses_the_label_that_is_known():
    rows = batch([[-1, 1], [0, 0]], [1, 0], 2)
    w = weights(LateLabelSampler(), rows, [[0.9, 0.5], [0.9, 0.5]])
    np.testing.assert_allclose(w, [2.0, 1.0], rtol=1e-5)


def test_factor_is_limited():
    w = weights(LateLabelSampler(max_weight=4.0), batch([1], [1]), [0.99])
    np.testing.assert_allclose(w, [4.0], rtol=1e-5)


@pytest.mark.parametrize("truth", [0.05, 0.4])
def test_stationary_points(truth: float):
    """Every example comes as a negative; its positive follows with probability ``truth``."""
    found = {}
    for method in ("importance", "fake_negative", "plain"):
        sampler = LateLabelSampler(method)

        def gradient(p: float, sampler: LateLabelSampler = sampler) -> float:
            w = weights(sampler, batch([0, 1], [0, 1]), [p, p])
            return float(w[0] * p + truth * w[1] * (p - 1.0))

        low, high = 1e-3, 0.9
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if gradient(middle) > 0 else (middle, high)
        found[method] = low
    np.testing.assert_allclose(found["importance"], truth, rtol=1e-3)
    np.testing.assert_allclose(found["fake_negative"], truth, rtol=1e-3)
    np.testing.assert_allclose(found["plain"], truth / (1 + truth), rtol=1e-3)


def test_without_corrections_nothing_changes():
    rows = batch([0, 1], [0, 0])
    for method in ("importance", "plain"):
        np.testing.assert_array_equal(weights(LateLabelSampler(method), rows, [0.2, 0.7]), [1, 1])


def test_refusals():
    with pytest.raises(ConfigError, match="method must be one of"):
        LateLabels("wait")
    with pytest.raises(ConfigError, match="max_weight"):
        LateLabels(max_weight=0.5)
    recipe = compose(tiny_recipe(), [LateLabels()])
    with pytest.raises(ModuleError, match="already"):
        LateLabels().apply(recipe)
    with pytest.raises(ConfigError, match="by one label"):
        weights(LateLabelSampler("fake_negative"), batch([[0, 1]], [0], 2), [[0.1, 0.1]])
    assert replace(recipe, sampler=tiny_recipe().sampler) == tiny_recipe()
