from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from ctr.calibration import NoCalibration
from ctr.data.examples import Chunk
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import WideDcn
from ctr.module import compose
from ctr.optimizers import KerasOptimizer, Optimizers
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.rank_loss import RankLossModule
from ctr.testing import module_checks, tiny_recipe
from research_modules.dp_training.accounting import (
    sampled_epsilon,
    single_pass_epsilon,
    single_pass_noise,
)
from research_modules.dp_training.module import DpTraining
from research_modules.dp_training.noise import (
    NoiseState,
    mixing,
    root_coefficients,
    sensitivity,
)
from research_modules.dp_training.rows import RowDescent, contributions, split_noise

SCHEMA = Schema(
    "tiny",
    (
        Feature("user", salt="same"),
        Feature("friend", salt="same"),
        Feature("words", kind="bag", max_length=3),
        Feature("price", kind="numeric"),
    ),
    (Label("click"), Label("like")),
)
LABELS = ("click", "like")
SGD = KerasOptimizer("SGD", rate=0.1)
BASE = Recipe(
    model=WideDcn(dim=4, hidden=(8,), cross_layers=1, cross_rank=2),
    optimizer=Optimizers(RowDescent(), RowDescent(), SGD, SGD),
    calibrator=NoCalibration(), batch_size=16, table_rows=64, init_scale=0.3,
)  # fmt: skip
PLAIN = {"noise": 1e-20, "clip": 1e9, "batches": 1, "row_rate": 0.05}


def learner_of(**settings: object) -> Learner:
    return Learner(compose(BASE, [DpTraining(**settings)]), SCHEMA, 1, LABELS, n_batches=4)


def chunk(learner: Learner, seed: int = 0) -> Chunk:
    k, b = learner.chunk_shape
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 64, size=(k, b, 5)).astype(np.int32)
    ids[..., 4] *= rng.random((k, b)) < 0.5
    ids[:, :3, 1] = ids[:, :3, 0]  # one row twice in an example, by two features
    labels = (rng.random((k, b, 2)) < 0.3).astype(np.float32)
    weights = rng.uniform(0.5, 2.0, (k, b)).astype(np.float32)
    weights[0, 5] = 0.0
    return Chunk(ids, rng.normal(size=(k, b, 1)).astype(np.float32), labels, weights, {})


def test_epsilon_of_a_single_pass_is_that_of_one_gaussian() -> None:
    for epsilon, noise in ((1, 4.2247), (3, 1.5439), (8, 0.6529)):
        assert single_pass_noise(epsilon, 1e-6) == pytest.approx(noise, abs=1e-4)
    for noise, epsilon in ((1, 4.88655), (2, 2.25408), (4, 1.06070), (8, 0.50386)):
        assert single_pass_epsilon(noise, 1e-6) == pytest.approx(epsilon, abs=1e-4)
    assert single_pass_epsilon(4.0, 1e-6, 4) == pytest.approx(single_pass_epsilon(2.0, 1e-6))
    for rows, epsilon in ((4, 2.12), (16, 4.59), (64, 10.3)):
        assert single_pass_epsilon(4.2247, 1e-6, rows) == pytest.approx(epsilon, rel=5e-3)


def test_accounting_for_samples_claims_far_too_much_here() -> None:
    assert sampled_epsilon(1.0, 0.01, 1000, 1e-5, "rdp") == pytest.approx(2.1014, abs=1e-3)
    assert sampled_epsilon(1.0, 0.01, 1000, 1e-5) == pytest.approx(1.8282, abs=1e-2)
    assert single_pass_epsilon(0.699, 1e-6) == pytest.approx(7.38, abs=0.02)
    with pytest.raises(ConfigError, match="sees each example once"):
        DpTraining(sampling="poisson")


def test_without_the_accounting_package_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigError, match=r"pip install 'online-ctr\[dp\]'"):
        compose(BASE, [DpTraining()])


@pytest.mark.parametrize("settings", [{}, {"noise": 0.0, "epsilon": np.inf}])
def test_without_noise_or_bound_it_is_the_plain_recipe(settings: dict[str, float]) -> None:
    private = learner_of(**PLAIN | settings)
    plain = Learner(replace(BASE, features=private.recipe.features), SCHEMA, 1, LABELS, n_batches=4)
    for seed in range(2):
        stream = chunk(plain, seed)
        np.testing.assert_allclose(private.learn(stream), plain.learn(stream), atol=2e-6)
    np.testing.assert_allclose(private.table.embedding, plain.table.embedding, atol=1e-5)
    assert np.abs(plain.table.embedding.numpy()).max() > 0.3


def one_by_one(learner: Learner, stream: Chunk, clip: float) -> tuple[np.ndarray, np.ndarray]:
    """Clips each example of the first batch by a loop; returns summed dense and row gradients."""
    dense = learner.update._dense
    total, rows = 0.0, np.zeros((64, 6))
    for i in range(16):
        ids = tf.constant(stream.ids[0, i : i + 1])
        with tf.GradientTape() as tape:
            tables = [v.read_value() for v in (learner.table.embedding, learner.table.wide)]
            tape.watch(tables)
            looked_up = SimpleNamespace(lookup=lambda ids, t=tables: learner_rows(t, ids))
            table, learner.table = learner.table, looked_up
            forward = learner._forward(ids, tf.zeros([1, 1]), training=False)[2]
            learner.table = table
            labels = stream.labels[0, i : i + 1]
            loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, forward.logits)
            loss = tf.reduce_sum(loss) * stream.weights[0, i]
        ours, theirs = tape.gradient(loss, (dense, tables), unconnected_gradients="zero")
        flat = np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in ours])
        by_row = np.concatenate([tf.convert_to_tensor(g) for g in theirs], axis=1)
        norm = np.sqrt((flat**2).sum() + (by_row**2).sum())
        factor = min(1.0, clip / max(norm, 1e-12))
        total, rows = total + factor * flat, rows + factor * by_row
    return total, rows


def learner_rows(tables: list[tf.Tensor], ids: tf.Tensor):
    from ctr.api import Rows

    return Rows(*(tf.gather(table, ids) for table in tables))


def test_clipping_alone_clips_as_with_noise_and_claims_nothing() -> None:
    few = {"clip": 0.2, "batches": 1}
    alone, summed = learner_of(epsilon=np.inf, **few), learner_of(noise=1e-9, **few)
    for seed in range(2):
        np.testing.assert_allclose(
            alone.learn(chunk(alone, seed)), summed.learn(chunk(summed, seed)), atol=1e-6
        )
    np.testing.assert_allclose(alone.table.embedding, summed.table.embedding, atol=1e-6)
    report = alone.update.report()
    assert report["clipped_share"] == summed.update.report()["clipped_share"]
    assert report["clipped_share"] > 0.5
    assert "no privacy" in str(report["guarantee"])
    assert report["epsilon"] is None


@pytest.mark.parametrize("clip", [0.2, 1e9])
def test_clipped_sums_are_those_of_a_loop(clip: float) -> None:
    learner = learner_of(noise=1.0, clip=clip, batches=100)
    warm = chunk(learner)
    learner.model.base.head.kernel.assign(tf.random.stateless_normal([8, 2], [1, 1]))
    expected, rows = one_by_one(learner, warm, clip)
    for part in warm[:4]:
        part[1:] = 0
    learner.learn(warm)
    np.testing.assert_allclose(learner.update.dense_sum, expected, atol=1e-5)
    np.testing.assert_allclose(learner.update.row_sum, rows, atol=1e-5)
    assert learner.update.learned.numpy() == 15  # one row is padding


def test_noise_has_its_size_reaches_every_row_and_does_not_depend_on_the_split() -> None:
    stream = chunk(learner_of(**PLAIN))
    moved = []
    for batches in (1, 4):
        learner = learner_of(noise=3.0, clip=0.5, batches=batches, row_rate=1.0)
        before = learner.table.embedding.numpy().copy()
        learner.learn(stream)
        moved.append(np.asarray(learner.table.embedding) - before)
        assert learner.update.release.numpy() == 4 // batches
    assert (moved[1] != 0.0).all()
    # 64 x 4 draws of standard deviation 1.5, and gradients of at most 0.5 times 64 examples.
    assert np.std(moved[1]) == pytest.approx(1.5, rel=0.25)
    assert np.std(moved[0]) == pytest.approx(3.0, rel=0.25)


def test_correlated_noise_is_the_product_of_its_matrices() -> None:
    n, kept = 12, 5
    root = root_coefficients(n)
    np.testing.assert_allclose(root[:4], [1, 0.5, 0.375, 0.3125])
    matrix = np.array([[root[i - j] if i >= j else 0.0 for j in range(n)] for i in range(n)])
    np.testing.assert_allclose(matrix @ matrix, np.tril(np.ones((n, n))), atol=1e-12)
    np.testing.assert_allclose(mixing(4), [1, -0.5, -0.125, -0.0625])
    assert sensitivity(mixing(256), 256) ** 2 == pytest.approx(2.831, abs=2e-3)
    assert sensitivity(mixing(1), 100) == 1.0
    weights = mixing(kept)
    inverse = np.array([[weights[i - j] if 0 <= i - j < kept else 0.0 for j in range(n)]
                        for i in range(n)])  # fmt: skip
    assert sensitivity(weights, n) == pytest.approx(np.linalg.norm(np.linalg.inv(inverse)[:, 0]))
    fresh = NoiseState(3, mixing(1), 1.0, 5)
    draws = np.stack([fresh.draw(tf.constant(t, tf.int64)) for t in range(n)])
    state = NoiseState(3, weights, 1.0, 5)
    found = np.stack([state.draw(tf.constant(t, tf.int64)) for t in range(n)])
    np.testing.assert_allclose(found, inverse @ draws, atol=1e-5)


def test_histogram_and_gradient_share_the_budget() -> None:
    first, second = split_noise(2.0, 0.1)
    assert (first**-2 + second**-2) ** -0.5 == pytest.approx(2.0)
    ids = tf.constant([[1, 1, 2], [3, 0, 0], [2, 3, 0], [2, 2, 2]])
    counts = contributions(ids, tf.constant([1.0, 1.0, 1.0, 0.0]), 4).numpy()
    half = 0.5**0.5
    np.testing.assert_allclose(counts, [0.0, half, 2 * half, 1 + half], rtol=1e-6)


def test_adafest_moves_only_rows_that_many_examples_touched() -> None:
    learner = learner_of(
        noise=0.05, clip=1.0, batches=4, rows="adafest", threshold=2.0, most_rows=8
    )
    before = learner.table.embedding.numpy().copy()
    stream = chunk(learner)
    learner.learn(stream)
    touched = contributions(
        tf.constant(stream.ids.reshape(-1, 5)),
        tf.constant(stream.weights.ravel() > 0, tf.float32),
        64,
    ).numpy()
    moved = np.flatnonzero((np.asarray(learner.table.embedding) != before).any(axis=1))
    assert 0 < len(moved) <= 8
    assert touched[moved].min() > 1.7
    assert len(moved) == 8 or set(np.flatnonzero(touched > 2.3)) <= set(moved)


def test_a_users_contributions_are_bounded() -> None:
    learner = learner_of(noise=1.0, user="user", per_user=2, batches=2)
    stream = chunk(learner)
    stream.ids[..., 0] = 7
    stream.weights[:] = 1.0
    learner.learn(stream)
    # Two releases of two batches: one example in each.
    assert learner.update.learned.numpy() == 2
    assert learner.update.dropped.numpy() == 62
    learner.learn(stream)
    assert learner.update.learned.numpy() == 2
    report = learner.update.report()
    assert "at most 2 examples" in report["guarantee"]
    assert report["epsilon"] == pytest.approx(single_pass_epsilon(1.0, 1e-6, 2))


def test_batches_grow_when_the_signal_drowns() -> None:
    learner = learner_of(noise=50.0, batches=1, grow_below=1e9, most_batches=2)
    learner.learn(chunk(learner))
    assert learner.update.batches.numpy() == 2
    assert learner.update.release.numpy() == 2


def test_what_cannot_be_private_is_refused_with_a_sentence() -> None:
    with pytest.raises(ModuleError, match="belongs to one example"):
        compose(BASE, [DpTraining(noise=1.0), RankLossModule()])
    with pytest.raises(ConfigError, match="only cancels under plain descent"):
        compose(replace(BASE, optimizer=Optimizers()), [DpTraining(mechanism="sqrt_toeplitz")])
    with pytest.raises(ConfigError, match="take part once"):
        DpTraining(mechanism="sqrt_toeplitz", user="user", per_user=2)
    with pytest.raises(ConfigError, match="needs `user`"):
        DpTraining(per_user=2)
    with pytest.raises(ConfigError, match="mechanism 'tree'"):
        DpTraining(mechanism="tree")
    with pytest.raises(ModuleError, match="no categorical feature 'who'"):
        Learner(compose(BASE, [DpTraining(user="who")]), SCHEMA)
    counted = replace(SCHEMA, features=(replace(SCHEMA.features[0], admission=3),))
    with pytest.raises(ModuleError, match="counts its ids"):
        Learner(compose(BASE, [DpTraining()]), counted)


INDEPENDENT = module_checks(DpTraining(batches=3), replace(tiny_recipe(), table_rows=512))
CORRELATED = module_checks(
    DpTraining(batches=2, mechanism="sqrt_toeplitz", kept=4),
    replace(tiny_recipe(), table_rows=512, optimizer=Optimizers(head=SGD, tower=SGD)),
)


@pytest.mark.parametrize("check", INDEPENDENT, ids=str)
def test_dp_training_keeps_the_contract(check) -> None:
    check()


@pytest.mark.parametrize("check", CORRELATED, ids=str)
def test_correlated_noise_keeps_the_contract(check) -> None:
    check()
