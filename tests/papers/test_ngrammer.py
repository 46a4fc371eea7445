from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.data.examples import Chunk
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.testing import module_checks, tiny_recipe
from research_modules.ngrammer.model import merge
from research_modules.ngrammer.module import NGrammer
from research_modules.ngrammer.quantize import (
    hash_primes,
    layer_norm,
    moved_centroids,
    nearest_codes,
    pair_ids,
    pair_rows,
)

SCHEMA = Schema(
    "tiny",
    (Feature("who"), Feature("words", kind="bag", max_length=4)),
    (Label("click"),),
)
TINY = Recipe(model=Mlp(dim=8, hidden=(8,)), batch_size=32, table_rows=256)


def pairs_of(codes: list[int], n_codes: int, follows: list[int] | None = None) -> list[int]:
    given = None if follows is None else tf.constant([follows]) != 0
    return pair_ids(tf.constant([codes])[..., None], n_codes, given)[0, :, 0].numpy().tolist()


def test_pairs_have_the_ids_of_the_reference() -> None:
    assert pairs_of([3, 1, 2], 5) == [3, 16, 7]
    assert pairs_of([3, 1, 2, 4], 5, [0, 1, 0, 1]) == [3, 16, 2, 14]
    # Beyond int32, and hashed without overflow.
    assert pairs_of([999_999, 999_999], 1_000_000)[1] == 999_999_999_999
    huge = pair_rows(tf.constant([[999_999_999_999, 999_999_999_999]], tf.int64), 1000).numpy()
    primes = hash_primes(2, 1000)
    expected = [((999_999_999_999 * h + h) % p) % 1000 for h, p in zip((1, 2), primes, strict=True)]
    assert huge[0].tolist() == expected


def test_heads_hash_with_primes_of_their_own() -> None:
    assert hash_primes(3, 10) == (11, 13, 17)
    assert hash_primes(3, 196_608) == (196_613, 196_643, 196_657)
    pairs = tf.repeat(tf.constant([3, 16, 7], tf.int64)[:, None], 3, axis=1)
    assert pair_rows(pairs, 10).numpy().T.tolist() == [[4, 6, 8], [8, 8, 3], [2, 0, 7]]
    # With room for all pairs each has a row of its own.
    every = tf.repeat(tf.range(25, dtype=tf.int64)[:, None], 2, axis=1)
    roomy = pair_rows(every, 60).numpy()
    np.testing.assert_array_equal(roomy[:, 1], 2 * np.arange(25) + 2)


def test_centroids_move_towards_their_tokens() -> None:
    centroids = tf.constant([[[0.0, 0.0], [10.0, 0.0], [0.0, 4.0]]])
    heads = tf.constant([[[1.0, 0.0]], [[3.0, 0.0]], [[9.0, 0.0]], [[9.0, 9.0]]])
    codes = nearest_codes(heads, centroids)
    counted = tf.constant([1.0, 1.0, 1.0, 0.0])  # the last token is padding
    moved, used = moved_centroids(centroids, heads, codes, counted, 0.9)
    np.testing.assert_allclose(moved[0], [[0.2, 0.0], [9.9, 0.0], [0.0, 3.6]], atol=1e-5)
    np.testing.assert_array_equal(used[0], [2.0, 1.0, 0.0])


def test_norm_and_merge_are_those_of_the_layer() -> None:
    zero = tf.zeros([2])
    rows = layer_norm(tf.constant([[3.0, 5.0], [2.0, 2.0]]), zero, zero)
    np.testing.assert_allclose(rows, [[-1, 1], [0, 0]], atol=1e-5)
    tokens, pairs = tf.constant([[1.0, 2.0, 3.0]]), tf.constant([[7.0, 8.0]])
    np.testing.assert_array_equal(merge(tokens, pairs, "concat"), [[1.0, 7.0, 8.0]])
    np.testing.assert_array_equal(merge(tokens, tf.zeros_like(tokens), "add"), tokens)


def chunk(learner: Learner, seed: int = 0, padded: bool = False) -> Chunk:
    k, b = learner.chunk_shape
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 40, size=(k, b, 5)).astype(np.int32)
    ids[..., 3:] *= rng.random((k, b, 1)) < 0.7
    labels = (rng.random((k, b, 1)) < 0.3).astype(np.float32)
    weights = np.ones((k, b), np.float32)
    if padded:
        weights[:, 20:] = 0.0
        ids[:, 20:] = 0
    return Chunk(ids, np.zeros((k, b, 0), np.float32), labels, weights, {})


def grown(n_batches: int = 8, seed: int = 1, **settings: object) -> Learner:
    module = NGrammer("words", codes=4, mature=2, **settings)
    return Learner(compose(TINY, [module]), SCHEMA, seed, n_batches=n_batches)


@pytest.fixture(scope="module")
def learned() -> Learner:
    learner = grown()
    learner.learn(chunk(learner))
    return learner


def rows_of(learner: Learner, tokens: list[list[int]]) -> np.ndarray:
    ids = tf.constant([[1, *row] for row in tokens])
    found, _ = learner.transforms[0](ids, tf.zeros([len(tokens), 0]), learner.table)
    return found[:, 5:].numpy().reshape(len(tokens), 2, 4)


def test_pairs_see_order_and_nothing_that_follows(learned: Learner) -> None:
    rows = rows_of(learned, [[2, 3, 5, 7], [2, 3, 7, 5], [3, 2, 5, 7], [2, 3, 0, 0]])
    np.testing.assert_array_equal(rows[0, :, :2], rows[1, :, :2])
    np.testing.assert_array_equal(rows[0, :, :2], rows[3, :, :2])
    assert (rows[3, :, 2:] == 0).all()
    assert (rows[:3] > 0).all()
    reordered = rows_of(learned, [list(row) for row in np.random.default_rng(0).permuted(
        np.tile([2, 3, 5, 7], (20, 1)), axis=1)])  # fmt: skip
    assert len({row.tobytes() for row in np.sort(reordered, axis=2)}) > 1


def test_immature_tokens_have_no_pairs_and_serving_learns_nothing(learned: Learner) -> None:
    rows = rows_of(learned, [[2, 200, 3, 5]])
    assert (rows[0, :, [1, 2]] == 0).all()
    assert (rows[0, :, [0, 3]] > 0).all()
    state = learned.transforms[0]
    before = [v.numpy().copy() for v in state.variables]
    other = chunk(learned, 3)
    learned.predict(other.ids[0], other.numeric[0])
    for variable, value in zip(state.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    report = state.report()
    assert report["coded_rows"] >= 38
    assert all(1.0 < p <= 4.0 for p in report["code_perplexity"])


def test_every_centroid_stands_among_the_tokens(learned: Learner) -> None:
    state = learned.transforms[0]
    size = np.abs(state.centroids.numpy()).max(axis=2)
    assert (size > 0).all()
    assert (state.idle.numpy() <= 200).all()


def test_nothing_is_quantised_before_its_time_nor_after() -> None:
    early = grown(start=10_000)
    early.learn(chunk(early))
    assert (early.transforms[0].codes.numpy() == -1).all()
    assert (rows_of(early, [[2, 3, 5, 7]]) == 0).all()
    frozen = grown(freeze=64)
    frozen.learn(chunk(frozen))
    state = frozen.transforms[0]
    centroids, codes = state.centroids.numpy().copy(), state.codes.numpy().copy()
    frozen.learn(chunk(frozen, 1))
    np.testing.assert_array_equal(state.centroids, centroids)
    given = codes[:, 0] >= 0
    assert given.any()
    np.testing.assert_array_equal(state.codes.numpy()[given], codes[given])


@pytest.mark.parametrize("mode", ["add", "concat", "stub"])
def test_reference_modes_learn(mode: str) -> None:
    learner = grown(n_batches=4, mode=mode)
    first = learner.learn(chunk(learner))
    assert np.isfinite(first).all()
    # At this width nothing of the tokens is kept beside the pairs that take their place.
    norm = learner.model.pair_norm if mode == "concat" else learner.model.token_norm
    assert all(np.abs(v.numpy()).max() > 0 for v in norm.trainable_variables)


def test_bad_settings_are_refused_with_a_sentence() -> None:
    for settings, words in (
        ({"mode": "mean"}, "mode 'mean'"),
        ({"source": "kmeans"}, "source 'kmeans'"),
        ({"width": 2}, "at least 4"),
        ({"codes": 1}, "codes at least 2"),
        ({"start": 9, "freeze": 5}, "freeze must be"),
        ({"decay": 1.0}, "below 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            NGrammer(**settings)
    with pytest.raises(ModuleError, match="no bag 'title'"):
        Learner(compose(TINY, [NGrammer("title")]), SCHEMA)
    with pytest.raises(ModuleError, match="3 heads"):
        Learner(compose(TINY, [NGrammer("words", heads=3)]), SCHEMA)
    with pytest.raises(ConfigError, match="needs model"):
        compose(replace(TINY, model=Mlp(dim=4)), [NGrammer("words", mode="add")])


CHECKS = module_checks(NGrammer(mature=2, codes=8), replace(tiny_recipe(), table_rows=1024))


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_ngrammer_keeps_the_contract(check) -> None:
    check()
