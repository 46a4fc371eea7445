from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Features
from ctr.encoding.layout import layout_of
from ctr.inputs import CLIP, Standardizer, pool
from ctr.models.layers import flat_inputs
from ctr.schema import Feature, Label, Schema


def numbers(rows: int = 500) -> np.ndarray:
    rng = np.random.default_rng(2)
    values = rng.lognormal(2.0, 1.5, (rows, 3)).astype(np.float32) * [1, -1, 1]
    values[rng.random(values.shape) < 0.1] = np.nan
    return values.astype(np.float32)


@pytest.fixture
def standardizer() -> Standardizer:
    features = (
        Feature("plain", kind="numeric"),
        Feature("logged", kind="numeric", log=True),
        Feature("raw", kind="numeric", standardize=False),
    )
    return Standardizer(layout_of(Schema("numbers", features, (Label("click"),))))


@pytest.mark.parametrize("size", [1, 7, 100, 500])
def test_statistics_are_those_of_the_whole_stream(standardizer: Standardizer, size: int) -> None:
    values = numbers()
    weights = (np.arange(500) % 5 > 0).astype(np.float32)
    for at in range(0, 500, size):
        standardizer.observe(values[at : at + size], weights[at : at + size])
    kept = values[weights > 0].astype(np.float64)
    kept[:, 1] = np.sign(kept[:, 1]) * np.log1p(np.abs(kept[:, 1]))
    np.testing.assert_array_equal(standardizer.count, np.sum(~np.isnan(kept), axis=0))
    np.testing.assert_allclose(standardizer.mean, np.nanmean(kept, axis=0), rtol=1e-6)
    variance = standardizer.m2.numpy() / standardizer.count.numpy()
    np.testing.assert_allclose(np.sqrt(variance), np.nanstd(kept, axis=0), rtol=1e-6)


def test_values_are_shifted_scaled_cut_and_filled(standardizer: Standardizer) -> None:
    values = numbers()
    standardizer.observe(values, np.ones(500, np.float32))
    mapped = values.astype(np.float64)
    mapped[:, 1] = np.sign(mapped[:, 1]) * np.log1p(np.abs(mapped[:, 1]))
    expected = (mapped - np.nanmean(mapped, axis=0)) / np.nanstd(mapped, axis=0)
    expected[:, 2] = mapped[:, 2]
    expected = np.nan_to_num(np.clip(expected, -CLIP, CLIP))
    np.testing.assert_allclose(standardizer(tf.constant(values)), expected, atol=1e-4)
    assert (np.abs(expected[:, 2]) == CLIP).any()


def test_nothing_seen_yet_changes_nothing(standardizer: Standardizer) -> None:
    np.testing.assert_allclose(standardizer(tf.constant([[1.0, 0.0, 2.0]])), [[1.0, 0.0, 2.0]])


def test_bags_are_means_of_their_tokens() -> None:
    features = (Feature("a"), Feature("bag", kind="bag", max_length=3))
    layout = layout_of(Schema("bags", features, (Label("click"),)))
    ids = tf.constant([[5, 7, 8, 0], [5, 0, 0, 0], [5, 7, 7, 7]])
    rows = tf.reshape(tf.range(24, dtype=tf.float32), [3, 4, 2])
    pooled = pool(layout, ids, rows).numpy()
    assert pooled.shape == (3, 2, 2)
    np.testing.assert_array_equal(pooled[:, 0], rows[:, 0])
    np.testing.assert_array_equal(pooled[0, 1], [(2 + 4) / 2, (3 + 5) / 2])
    np.testing.assert_array_equal(pooled[1, 1], [0.0, 0.0])
    np.testing.assert_allclose(pooled[2, 1], rows.numpy()[2, 1:].mean(axis=0))


@pytest.mark.parametrize("n_numeric", [0, 3, 4, 9])
def test_flat_inputs_hold_everything_once_and_zeros(n_numeric: int) -> None:
    vectors = tf.random.stateless_normal([5, 2, 4], [1, 2])
    numeric = tf.random.stateless_normal([5, n_numeric], [3, 4])
    parts = (vectors, vectors[..., :1], numeric, None, None, None)
    flat = flat_inputs(Features(*parts)).numpy()
    np.testing.assert_array_equal(flat[:, :8], tf.reshape(vectors, [5, 8]))
    np.testing.assert_array_equal(flat[:, 8 : 8 + n_numeric], numeric)
    assert not flat[:, 8 + n_numeric :].any()
    assert flat.shape[1] % 4 == 0
