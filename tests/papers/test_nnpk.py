"""Random-network features: closed forms, frozen and reproducible draws, and what they add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Features, Rows
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.models import Linear, Mlp
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.testing import tiny_recipe
from ctr.testing.checks import Bench
from research_modules.nnpk.dense_stream import SCHEMA, learn, stream
from research_modules.nnpk.digits import Digits
from research_modules.nnpk.kernels import alignment, effective_rank, kernel_ridge, prior_kernel
from research_modules.nnpk.module import Nnpk, id_codes
from research_modules.nnpk.prior import Prior, PriorFeatures, prior_variance

PLAIN = Prior(n=4096, depth=1, width=8, bias_std=0.0, norm="none")
AXES = np.eye(3)
TINY = Recipe(model=Linear(), batch_size=64, table_rows=2)


def sampled(prior: Prior, x: np.ndarray) -> np.ndarray:
    phi = PriorFeatures(prior, x.shape[1])(x.astype(np.float32)).numpy().astype(float)
    return phi @ phi.T


@pytest.mark.parametrize("width", [1, 2, 8, 64])
def test_one_hidden_layer_is_unbiased_at_every_width(width: int) -> None:
    prior = replace(PLAIN, width=width, n=20_000 if width < 64 else 5_000)
    exact = prior_kernel(prior, AXES, AXES)
    assert exact[0, 1] == pytest.approx(1 / (np.pi * 3), abs=1e-9)
    assert exact[0, 0] == pytest.approx(1 / 3, abs=1e-9)
    error = sampled(prior, AXES) - exact
    # Six standard deviations; narrow networks have heavy tails.
    assert abs(error[0, 1]) < 0.02 if width < 8 else abs(error[0, 1]) < 0.035


def test_with_two_layers_narrow_networks_differ_from_wide_ones_by_a_visible_bias() -> None:
    two = replace(PLAIN, depth=2)
    assert prior_kernel(two, AXES, AXES)[0, 1] == pytest.approx(0.16458, abs=1e-5)
    assert prior_kernel(replace(PLAIN, depth=3), AXES, AXES)[0, 1] == pytest.approx(
        0.20161, abs=1e-5
    )
    # All pairs of axes have the same kernel, which makes three draws of each network.
    pairs = np.triu_indices(3, 1)
    means = {
        w: sampled(replace(two, width=w, n=n), AXES)[pairs].mean()
        for w, n in {2: 30_000, 32: 10_000}.items()
    }
    assert means[2] == pytest.approx(0.122, abs=0.012)
    assert means[32] == pytest.approx(0.162, abs=0.012)
    diagonal = np.diag(prior_kernel(two, AXES, AXES))
    np.testing.assert_allclose(diagonal, 1 / 3)


def test_correlations_rise_with_depth() -> None:
    found = []
    for depth in range(1, 6):
        k = prior_kernel(replace(PLAIN, depth=depth), AXES, AXES)
        found.append(k[0, 1] / k[0, 0])
    np.testing.assert_allclose(found, [0.31831, 0.49373, 0.60482, 0.68095, 0.73595], atol=1e-5)


def test_closed_forms_of_relu_and_erf() -> None:
    # The formulas are for w ~ N(0, I); here it is N(0, gain / d), so inputs are scaled back.
    x = np.array([[1.0, 0.0], [0.5, 3**0.5 / 2]])
    relu = prior_kernel(PLAIN, x * (2 / 2) ** 0.5, x * (2 / 2) ** 0.5)
    assert relu[0, 1] == pytest.approx(0.304499, abs=1e-6)
    erf = prior_kernel(replace(PLAIN, activation="erf"), x / 2**0.5, x / 2**0.5)
    assert erf[0, 0] == pytest.approx(0.464559, abs=1e-6)
    assert erf[0, 1] == pytest.approx(0.216347, abs=1e-6)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, (0.3183, 0.4937, 0.6048)),
        (0.25, (0.4533, 0.5783, 0.6623)),
        (0.5, (0.6090, 0.6839, 0.7381)),
        (0.75, (0.7880, 0.8176, 0.8412)),
        (1.0, (1.0, 1.0, 1.0)),
    ],
)
def test_the_kernel_of_hashed_features_counts_agreements(share: float, expected: tuple) -> None:
    angle = np.arccos(share)
    x = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    for depth, value in enumerate(expected, start=1):
        k = prior_kernel(replace(PLAIN, depth=depth), x, x)
        assert k[0, 1] / k[0, 0] == pytest.approx(value, abs=1e-4)


def test_codes_are_fixed_balanced_and_unlike_each_other() -> None:
    codes = id_codes(tf.range(1, 4097, dtype=tf.int32), 32).numpy()
    assert set(np.unique(codes)) == {-1.0, 1.0}
    assert np.abs(codes.mean(axis=0)).max() < 0.07
    products = codes[:500] @ codes[:500].T / 32
    assert np.std(products[np.triu_indices(500, 1)]) == pytest.approx(32**-0.5, rel=0.05)
    again = tf.function(lambda x: id_codes(x, 32), jit_compile=True)(tf.constant([5, 7]))
    np.testing.assert_array_equal(again, codes[[4, 6]])


def test_linear_networks_are_a_projection_of_the_inputs() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5))
    prior = replace(PLAIN, activation="linear", n=64)
    features = PriorFeatures(prior, 5)(x.astype(np.float32)).numpy()
    assert np.linalg.matrix_rank(features, tol=1e-4) == 5
    np.testing.assert_allclose(prior_kernel(prior, x, x), x @ x.T / 5)


def test_draws_are_repeatable_nested_and_distinct() -> None:
    x = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    few, again = (PriorFeatures(replace(PLAIN, n=64), 6)(x).numpy() for _ in range(2))
    more = PriorFeatures(replace(PLAIN, n=128), 6)(x).numpy()
    np.testing.assert_array_equal(few, again)
    np.testing.assert_allclose(few * 64**0.5, more[:, :64] * 128**0.5, rtol=1e-5, atol=1e-6)
    # Equal seeds for all networks, a known mistake, would give correlations of 1.
    correlation = np.corrcoef(more.T) - np.eye(128)
    assert np.nanmax(np.abs(correlation)) < 0.99
    other = PriorFeatures(replace(PLAIN, n=64, seed=1), 6)(x).numpy()
    assert np.abs(few - other).max() > 0.1


def test_the_estimate_scatters_as_theory_says() -> None:
    prior = replace(PLAIN, width=64, n=20_000)
    outputs = PriorFeatures(prior, 3)(AXES[:2].astype(np.float32)).numpy() * prior.n**0.5
    exact = prior_kernel(prior, AXES[:2], AXES[:2])
    expected = (exact[0, 0] * exact[1, 1] + exact[0, 1] ** 2) ** 0.5
    assert np.std(outputs[0] * outputs[1]) == pytest.approx(expected, rel=0.2)


def test_features_are_frozen_and_let_gradients_through() -> None:
    features = PriorFeatures(replace(PLAIN, n=4), 3)
    x = tf.constant([[1.0, -2.0, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(features(x))
    assert not features.variables
    assert np.abs(tape.gradient(total, x)).max() > 0


def test_without_biases_relu_features_are_homogeneous() -> None:
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    features = PriorFeatures(replace(PLAIN, n=16, depth=3), 4)
    np.testing.assert_allclose(features(3.0 * x), 3.0 * features(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "erf", "linear"])
def test_norms(activation: str) -> None:
    x = np.random.default_rng(3).normal(size=(6, 4))
    prior = replace(PLAIN, n=16, depth=2, activation=activation, bias_std=0.5)
    variance = prior_variance(prior, tf.constant(x, tf.float32)).numpy()
    np.testing.assert_allclose(variance, np.diag(prior_kernel(prior, x, x)), rtol=1e-4)
    cosine = PriorFeatures(replace(prior, norm="cosine"), 4)(x.astype(np.float32)).numpy()
    np.testing.assert_allclose(np.linalg.norm(cosine, axis=1), 1.0, rtol=1e-5)


def test_white_features_are_uncorrelated_on_inputs_not_seen() -> None:
    prior = replace(PLAIN, n=32, norm="white", bias_std=0.5)
    x = np.random.default_rng(7).normal(size=(4000, 6)).astype(np.float32)
    features = PriorFeatures(prior, 6)
    phi = features(x).numpy() * 32**0.5
    assert np.abs(phi.mean(axis=0)).max() < 0.15
    covariance = np.cov(phi.T)
    assert np.abs(covariance - np.eye(32)).max() < 0.35
    assert not features.trainable_variables


def test_kernel_ridge_is_ridge_on_the_features() -> None:
    x = np.random.default_rng(4).normal(size=(30, 4))
    y = np.sin(x[:, :1])
    phi = PriorFeatures(replace(PLAIN, n=64), 4)(x.astype(np.float32)).numpy().astype(float)
    kernel = phi @ phi.T
    dual = kernel_ridge(kernel, y, kernel, 1e-2)
    jitter = 1e-2 * np.trace(kernel) / len(x)
    primal = phi @ np.linalg.solve(phi.T @ phi + jitter * np.eye(64), phi.T @ y)
    np.testing.assert_allclose(dual, primal, atol=1e-6)


def test_alignment_and_rank_of_known_kernels() -> None:
    x = np.random.default_rng(5).normal(size=(50, 3))
    assert alignment(x @ x.T, 7 * x @ x.T) == pytest.approx(1.0)
    assert effective_rank(x[:, :1] @ x[:, :1].T) == pytest.approx(1.0)
    assert effective_rank(np.eye(50)) == pytest.approx(49.0)


def test_numbers_alone_go_in_as_they_are() -> None:
    learner = Learner(compose(tiny_recipe(), [Nnpk(n=4, width=2)]), SCHEMA)
    model = learner.model
    numeric = tf.constant([[1.0] + [0.0] * 15, [0.0] * 15 + [-2.0]])
    ids = tf.zeros([2, 0], tf.int32)
    rows = Rows(tf.zeros([2, 0, 4]), tf.zeros([2, 0, 1]))
    seen = tf.constant(0, tf.int64)
    x = model.inputs(Features(rows[0], rows[1], numeric, ids, rows, seen)).numpy()
    np.testing.assert_allclose(x, numeric)


def test_a_hashed_feature_counts_as_much_as_a_number_of_one_deviation() -> None:
    bench = Bench(Nnpk(n=4, width=2), tiny_recipe(), ())
    model = bench._first_learner.model
    layout = bench._first_learner.layout
    n, m, s = layout.n_features, len(layout.numeric), layout.n_slots
    ids = tf.constant(np.tile(np.arange(1, s + 1), (2, 1)), tf.int32)
    numeric = tf.constant(np.array([[1.0] + [0.0] * (m - 1), [0.0] * m]), tf.float32)
    rows = Rows(tf.zeros([2, n, 4]), tf.zeros([2, n, 1]))
    x = model.inputs(Features(rows[0], rows[1], numeric, ids, rows, tf.constant(0, tf.int64)))
    squares = (x.numpy() ** 2).mean(axis=1)
    one = squares[0] - squares[1]
    assert one == pytest.approx(1 / (n + m), rel=1e-4)
    # Plain features are whole codes; the mean code of a bag is shorter.
    assert squares[1] > one * layout.n_plain


def test_with_weights_of_zero_it_is_the_base_and_then_improves_on_it() -> None:
    data = stream(30_000, 0)
    plain, _ = learn(TINY, data)
    more, learner = learn(compose(TINY, [Nnpk(n=64, width=8)]), data)
    np.testing.assert_array_equal(plain[:64], more[:64])
    late = slice(15_000, None)
    assert more[late].mean() < 0.99 * plain[late].mean()
    assert learner.model.wide.prior.shape == (64, 1)


def test_as_inputs_the_model_is_built_for_them() -> None:
    recipe = compose(replace(TINY, model=Mlp(dim=1, hidden=(4,))), [Nnpk(n=8, into="inputs")])
    learner = Learner(recipe, SCHEMA)
    assert learner.model.base.wide.numeric.shape == (16 + 8, 1)


def test_many_networks_beat_many_outputs_of_one() -> None:
    digits = Digits()
    prior = Prior(n=256, depth=2, width=64, bias_std=0.0, norm="none")
    few, many = digits.accuracy(replace(prior, n=16)), digits.accuracy(prior)
    assert many > few + 0.1
    assert many > digits.one_network(256, 64) + 0.02
    assert digits.kernel_accuracy(prior) >= many - 0.005


@pytest.mark.parametrize(
    "settings",
    [{"n": 0}, {"activation": "tanh"}, {"norm": "batch"}, {"into": "tower"}, {"code_bits": 33}],
)
def test_bad_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        Nnpk(**settings)
