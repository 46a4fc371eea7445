"""Distributed Shampoo: closed forms, grafting, fallback, and exact resume in spite of a thread."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ctr.data.examples import Chunk
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.optimizers import AdaGrad, KerasOptimizer, Optimizers
from ctr.optimizers.inverse_root import inverse_fourth_roots
from ctr.optimizers.shampoo import EPSILON, Shampoo
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.shampoo import ShampooTower

PLAIN = Shampoo(rate=0.1, block=64, every=1, statistics_every=1, momentum=0.0, warmup=0,
                background=False)  # fmt: skip


def spd(rng, size, spread=3.0):
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    return vectors * np.logspace(0, -spread, size) @ vectors.T


def root(matrix, ridge):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * (values + ridge * values[-1]) ** -0.25 @ vectors.T


@pytest.mark.parametrize("spread", [0.0, 5.0, 10.0])
def test_fourth_power_of_a_root_inverts_the_ridged_matrix(spread):
    matrix = 37.0 * spd(np.random.default_rng(0), 24, spread)
    found = inverse_fourth_roots(matrix[None], 1e-6)
    shifted = matrix + 1e-6 * np.linalg.eigvalsh(matrix)[-1] * np.eye(24)
    power = np.linalg.matrix_power(found.roots[0], 4)
    np.testing.assert_allclose(power @ shifted, np.eye(24), atol=1e-6)
    assert found.accepted.all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_root_does_not_depend_on_the_unit(scale):
    matrix = spd(np.random.default_rng(0), 8)
    one = inverse_fourth_roots(matrix[None], 1e-6).roots
    other = inverse_fourth_roots(scale * matrix[None], 1e-6)
    np.testing.assert_allclose(other.roots * scale**0.25, one, rtol=1e-9, atol=1e-12)
    assert other.accepted.all()


def test_zero_and_broken_statistics_have_no_root():
    matrices = np.stack(
        [np.eye(4), np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), np.inf)]
    )
    assert inverse_fourth_roots(matrices, 1e-6).accepted.tolist() == [True, False, False, False]


def test_refreshed_every_step_it_is_the_full_matrix_closed_form():
    rng = np.random.default_rng(1)
    curvature, target = spd(rng, 12), rng.normal(size=(12, 5))
    weights = tf.Variable(tf.zeros([12, 5]))
    state = PLAIN.build([weights])
    left, right, total = np.zeros((12, 12)), np.zeros((5, 5)), np.full((12, 5), 1e-6)
    left_root, right_root = np.eye(12), np.eye(5)
    expected = np.zeros((12, 5))
    for step in range(20):
        state.apply([tf.constant(curvature @ (weights.numpy() - target), tf.float32)])
        state.between_launches()
        gradient = curvature @ (expected - target)
        total += gradient**2
        size = gradient / np.sqrt(total + EPSILON)
        direction = left_root @ gradient @ right_root
        direction *= np.linalg.norm(size) / np.linalg.norm(direction)
        # There are no roots before the first step: it is AdaGrad's.
        expected -= 0.1 * (direction if step else size)
        left += gradient @ gradient.T
        right += gradient.T @ gradient
        left_root, right_root = root(left, 1e-6), root(right, 1e-6)
        np.testing.assert_allclose(weights.numpy(), expected, rtol=2e-3, atol=2e-4)


def test_one_statistic_gives_the_polar_factor_of_the_gradient():
    gradient = np.random.default_rng(2).normal(size=(6, 6)).astype(np.float32)
    weights = tf.Variable(tf.zeros([6, 6]))
    state = dataclasses.replace(PLAIN, ridge=1e-12).build([weights])
    state.apply([tf.constant(gradient)])
    state.between_launches()
    before = weights.numpy()
    state.apply([tf.constant(gradient)])
    step = before - weights.numpy()
    u, _, vt = np.linalg.svd(gradient)
    np.testing.assert_allclose(step / np.linalg.norm(step), u @ vt / 6**0.5, atol=1e-4)


def test_a_block_as_large_as_the_matrix_equals_no_blocks():
    rng = np.random.default_rng(3)
    gradients = [tf.constant(rng.normal(size=(12, 7)), tf.float32) for _ in range(5)]
    results = []
    for block in (12, 10_000):
        weights = tf.Variable(tf.zeros([12, 7]))
        state = dataclasses.replace(PLAIN, block=block).build([weights])
        for gradient in gradients:
            state.apply([gradient])
            state.between_launches()
        results.append(weights.numpy())
    np.testing.assert_array_equal(*results)


def test_blocks_are_the_diagonal_blocks_even_where_they_do_not_fit():
    rng = np.random.default_rng(4)
    gradient = rng.normal(size=(7, 5)).astype(np.float32)
    weights = tf.Variable(tf.zeros([7, 5]))
    state = dataclasses.replace(PLAIN, block=4).build([weights])
    state.apply([tf.constant(gradient)])
    state.between_launches()
    direction = state.kronecker[0].precondition(tf.constant(gradient)).numpy()
    expected = gradient.astype(np.float64)
    left = [root(part @ part.T, 1e-6) for part in (expected[:4], expected[4:])]
    right = [root(part.T @ part, 1e-6) for part in (expected[:, :3], expected[:, 3:])]
    expected = np.concatenate([left[0] @ expected[:4], left[1] @ expected[4:]])
    expected = np.concatenate([expected[:, :3] @ right[0], expected[:, 3:] @ right[1]], axis=1)
    np.testing.assert_allclose(direction, expected, rtol=1e-3, atol=1e-4)


def test_a_step_is_as_long_as_adagrads():
    rng = np.random.default_rng(5)
    ours, theirs = tf.Variable(tf.zeros([40, 24])), tf.Variable(tf.zeros([40, 24]))
    state = dataclasses.replace(PLAIN, block=16).build([ours])
    adagrad = KerasOptimizer(rate=0.1).build([theirs])
    for step in range(12):
        gradient = tf.constant(rng.normal(size=(40, 24)) * 10.0 ** rng.integers(-4, 2), tf.float32)
        before = ours.numpy(), theirs.numpy()
        state.apply([gradient])
        adagrad.apply([gradient])
        state.between_launches()
        a, b = ours.numpy() - before[0], theirs.numpy() - before[1]
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=2e-5)
        if step > 1:
            assert np.abs(a - b).max() > 0.1 * np.abs(b).max()


def test_vectors_and_everything_before_the_first_roots_follow_adagrad():
    rng = np.random.default_rng(6)
    shapes = ([9], [9, 1], [9, 4])
    ours = [tf.Variable(tf.zeros(shape)) for shape in shapes]
    theirs = [tf.Variable(tf.zeros(shape)) for shape in shapes]
    state = Shampoo(rate=0.1, every=6, statistics_every=1, warmup=0).build(ours)
    adagrad = KerasOptimizer(rate=0.1).build(theirs)
    differs = []
    for _ in range(15):
        gradients = [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]
        state.apply(gradients)
        adagrad.apply(gradients)
        state.between_launches()
        for a, b in zip(ours[:2], theirs[:2], strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
        differs.append(bool(np.abs(ours[2].numpy() - theirs[2].numpy()).max() > 1e-5))
    # Asked for after 6 steps, taken over after 12: whatever the thread's speed.
    assert differs == [False] * 12 + [True] * 3


def test_statistics_in_use_are_n_to_2n_steps_old():
    weights = tf.Variable(tf.zeros([3, 3]))
    state = Shampoo(every=4, statistics_every=1, momentum=0.0).build([weights])
    seen = []
    for _ in range(13):
        state.apply([tf.eye(3)])  # after n steps the left statistic is n * I
        state.between_launches()
        seen.append(round(float(state.kronecker[0].left.roots[0, 0, 0].numpy()) ** -4))
    assert seen == [1] * 7 + [4] * 4 + [8] * 2


def test_a_rejected_root_keeps_the_old_one_and_training_goes_on():
    weights = tf.Variable(tf.zeros([3, 3]))
    state = PLAIN.build([weights])
    state.apply([tf.eye(3)])
    state.between_launches()
    old = state.kronecker[0].left.roots.numpy()
    state.kronecker[0].left.statistics.assign(tf.fill([1, 3, 3], tf.constant(np.nan, tf.float64)))
    state.apply([tf.eye(3)])
    state.between_launches()
    np.testing.assert_array_equal(state.kronecker[0].left.roots.numpy(), old)
    assert int(state.rejected.numpy()) == 1
    assert np.isfinite(weights.numpy()).all()


def test_padding_moves_nothing_in_spite_of_momentum():
    weights = tf.Variable(tf.zeros([4, 4]))
    state = dataclasses.replace(PLAIN, momentum=0.9).build([weights])
    state.apply([tf.eye(4)])
    before = [v.numpy() for v in (weights, *state.variables)]
    state.apply([tf.zeros([4, 4])])
    for old, new in zip(before, (weights, *state.variables), strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def planted_problem(optimizer, steps=400):
    """Returns the final loss of a linear-logistic problem with rotated feature scales 1..1000."""
    rng = np.random.default_rng(7)
    mix = (
        np.linalg.qr(rng.normal(size=(16, 16)))[0]
        * np.logspace(0, 3, 16)
        @ np.linalg.qr(rng.normal(size=(16, 16)))[0]
    )
    x = (rng.normal(size=(2000, 16)) @ mix).astype(np.float32)
    truth = np.linalg.solve(mix, rng.normal(size=(16, 4)) * 2.0)
    y = (rng.random((2000, 4)) < 1 / (1 + np.exp(-x @ truth))).astype(np.float32)
    weights = tf.Variable(tf.zeros([16, 4]))
    state = optimizer.build([weights])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, x @ weights))
        state.apply([tape.gradient(loss, weights)])
        return loss

    for _ in range(steps):
        loss = step()
        if hasattr(state, "between_launches"):
            state.between_launches()
    return float(loss)


def test_badly_scaled_features_are_learned_where_tuned_adagrad_is_not():
    rates = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    best = min(planted_problem(KerasOptimizer(rate=rate)) for rate in rates)
    shampoo = Shampoo(every=1, statistics_every=1, warmup=0, ridge=1e-9, background=False)
    ours = min(planted_problem(dataclasses.replace(shampoo, rate=r)) for r in (0.001, 0.01, 0.1))
    stale = dataclasses.replace(shampoo, every=20, background=True)
    late = min(planted_problem(dataclasses.replace(stale, rate=r)) for r in (0.001, 0.01, 0.1))
    assert ours < best - 0.03
    assert late < best - 0.03


SCHEMA = Schema("tiny", (Feature("a"), Feature("b"), Feature("x", "numeric")), (Label("click"),))
RECIPE = Recipe(
    model=Mlp(dim=4, hidden=(16, 8)),
    optimizer=Optimizers(embedding=AdaGrad(0.1)),
    batch_size=512,
    table_rows=2048,
)


def chunks(learner, count, seed=0):
    k, b = learner.chunk_shape
    rng = np.random.default_rng(seed)
    for _ in range(count):
        ids = rng.integers(1, 2048, (k, b, 2)).astype(np.int32)
        labels = rng.integers(0, 2, (k, b, 1)).astype(np.float32)
        yield Chunk(ids, rng.normal(size=(k, b, 1)).astype(np.float32), labels,
                    np.ones((k, b), np.float32), {})  # fmt: skip


def test_a_resumed_learner_continues_bit_for_bit(tmp_path):
    recipe = compose(RECIPE, [ShampooTower(block=8, every=40, statistics_every=2, warmup=0)])
    whole = Learner(recipe, SCHEMA)
    parts = list(chunks(whole, 7))
    checkpoint = None
    for place, part in enumerate(parts):
        whole.learn(part)
        if place == 3:  # roots have been asked for, and are not in use yet
            checkpoint = tf.train.Checkpoint(learner=whole).write(str(tmp_path / "c"))
    resumed = Learner(recipe, SCHEMA)
    tf.train.Checkpoint(learner=resumed).read(checkpoint).assert_consumed()
    for part in parts[4:]:
        resumed.learn(part)
    for ours, theirs in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.name)
    state = next(s for s in whole.update.states if hasattr(s, "first_roots_at"))
    # The head starts at 0, so the tower's first gradient is 0 and does not count as a step.
    assert int(state.first_roots_at.numpy()) == 127


def test_the_module_takes_over_adagrads_step_size():
    recipe = compose(RECIPE, [ShampooTower(every=50)])
    tower = recipe.optimizer.tower
    assert (tower.rate, tower.initial_accumulator, tower.every) == (0.02, 1e-6, 50)
    assert recipe.optimizer.head is RECIPE.optimizer.head


def test_it_cannot_be_grafted_to_another_optimizer():
    adam = dataclasses.replace(
        RECIPE, optimizer=dataclasses.replace(RECIPE.optimizer, tower=KerasOptimizer("Adam"))
    )
    with pytest.raises(ConfigError, match="Adam"):
        compose(adam, [ShampooTower()])


@pytest.mark.parametrize(
    "wrong", [{"block": 0}, {"every": 0}, {"momentum": 1.0}, {"ridge": 0.0}, {"decay": 0.0},
              {"rate": -1.0}, {"warmup": -1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ShampooTower(**wrong)
