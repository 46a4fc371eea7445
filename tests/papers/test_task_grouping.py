from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.data.examples import Chunk
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import WideDcn
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.testing import module_checks, tiny_recipe
from research_modules.task_grouping.affinity import (
    TaskAffinity,
    affinity,
    lookahead,
    task_losses,
    unique_rows,
)
from research_modules.task_grouping.groups import TaskGrouping
from research_modules.task_grouping.selection import (
    FORBIDDEN,
    best_cover,
    cover_of,
    partitions,
    stability,
)

LABELS = ("click", "like", "share")
SCHEMA = Schema(
    "tiny",
    (Feature("a"), Feature("b"), Feature("words", kind="bag", max_length=3)),
    tuple(Label(name) for name in LABELS),
)
TINY = Recipe(
    model=WideDcn(dim=4, hidden=(8,), cross_layers=1, cross_rank=2), batch_size=32, table_rows=64
)
# Affinities published with the paper's notebook: recipient -> source -> value.
TASKONOMY = {
    "segmentation": {"normals": 0.04891, "depth": 0.1154, "keypoints": 0.004547, "edges": 0.008776},
    "depth": {"segmentation": 0.4136, "normals": 0.2914, "keypoints": 0.01354, "edges": 0.07396},
    "normals": {"segmentation": 0.1398, "depth": 0.2210, "keypoints": 0.01049, "edges": 0.07646},
    "keypoints": {"segmentation": 0.02110, "normals": 0.01073, "depth": 0.01337, "edges": 0.6897},
    "edges": {"segmentation": 0.05669, "normals": 0.03601, "depth": 0.03668, "keypoints": 0.3037},
}


def taskonomy() -> np.ndarray:
    names = list(TASKONOMY)
    matrix = np.zeros((5, 5))
    for recipient, sources in TASKONOMY.items():
        for source, value in sources.items():
            matrix[names.index(source), names.index(recipient)] = value
    return matrix


def chunk(learner: Learner, seed: int = 0) -> Chunk:
    k, b = learner.chunk_shape
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 64, size=(k, b, 5)).astype(np.int32)
    score = np.sin(ids.sum(axis=-1, keepdims=True) + np.arange(3))
    labels = (rng.random((k, b, 3)) < 1 / (1 + np.exp(-score))).astype(np.float32)
    return Chunk(ids, np.zeros((k, b, 0), np.float32), labels, np.ones((k, b), np.float32), {})


def quadratics(theta: list[float], rate: float, *tasks: tuple[list, list]) -> np.ndarray:
    def losses(shared: list) -> tf.Tensor:
        return tf.stack([
            0.5 * tf.reduce_sum(tf.constant(a) * (shared[0] - tf.constant(m)) ** 2)
            for a, m in tasks
        ])  # fmt: skip

    return affinity(lookahead(losses, [tf.constant(theta)], rate)).numpy()


def test_affinity_of_quadratics_is_known_in_closed_form() -> None:
    found = quadratics([2.0, 2.0], 0.1, ([1.0, 2.0], [1.0, 0.0]), ([3.0, 1.0], [0.0, 1.0]))
    expected = [[0.341111, 0.139231], [0.18, 0.485385]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for rate, conflict in ((0.1, -0.21), (0.5, -1.25)):
        found = quadratics([0.0], rate, ([1.0], [1.0]), ([1.0], [-1.0]))
        np.testing.assert_allclose(found[0, 1], conflict, rtol=1e-5)


def test_a_small_step_is_an_inner_product_and_strangers_do_not_matter() -> None:
    tasks = ([1.0, 2.0], [1.0, 0.0]), ([3.0, 1.0], [0.0, 1.0])
    g, losses = np.array([[1.0, 4.0], [6.0, 1.0]]), np.array([4.5, 6.5])
    found = quadratics([2.0, 2.0], 1e-3, *tasks) / 1e-3
    np.testing.assert_allclose(found, g @ g.T / losses, rtol=0.02)
    apart = quadratics([2.0, 2.0], 0.1, ([1.0, 0.0], [0.0, 0.0]), ([0.0, 1.0], [0.0, 0.0]))
    assert apart[0, 1] == apart[1, 0] == 0.0
    same = quadratics([2.0], 0.1, ([1.0], [0.0]), ([1.0], [0.0]))
    assert len(set(same.ravel())) == 1


def test_rows_that_occur_twice_are_one_parameter() -> None:
    ids = tf.constant([7, 3, 7, 9, 3, 7])
    place = unique_rows(ids).numpy()
    np.testing.assert_array_equal(place[:, None] == place[None], ids[:, None] == ids[None])
    table = tf.random.stateless_normal([10, 2], [1, 2])
    weight = tf.random.stateless_normal([6, 2, 2], [1, 3])

    def tasks(rows: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.tanh(tf.einsum("nd,ndt->nt", rows, weight)) ** 2, axis=0)

    whole = affinity(lookahead(lambda s: tasks(tf.gather(s[0], ids)), [table], 0.1))
    rows = tf.gather(table, ids)
    unique = tf.tensor_scatter_nd_update(tf.zeros_like(rows), place[:, None], rows)
    sparse = affinity(lookahead(lambda s: tasks(tf.gather(s[0], place)), [unique], 0.1))
    np.testing.assert_allclose(sparse, whole, atol=1e-6)


def test_task_losses_have_their_own_denominators() -> None:
    logits = tf.constant([[0.0, 2.0], [1.0, 0.0], [3.0, 3.0]])
    labels = tf.constant([[1.0, -1.0], [0.0, 1.0], [1.0, 1.0]])
    found = task_losses(logits, labels, tf.constant([1.0, 2.0, 0.0]))
    expected = [(np.log(2) + 2 * np.log1p(np.e)) / 3, np.log(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.fixture(scope="module")
def together() -> Learner:
    learner = Learner(TINY, SCHEMA, seed=2, labels=LABELS, n_batches=6)
    learner.learn(chunk(learner))
    return learner


def test_measuring_changes_no_bit_and_is_recorded(together: Learner) -> None:
    module = TaskAffinity(tasks=3, every=2, rate=30.0, first=32, examples=10_000)
    measured = Learner(compose(TINY, [module]), SCHEMA, 2, LABELS, n_batches=6)
    stream = chunk(measured)
    stream.labels[2, :, 1] = -1.0  # nothing is known of this label in the first measurement
    plain = Learner(TINY, SCHEMA, seed=2, labels=LABELS, n_batches=6)
    assert plain.learn(stream).tobytes() == measured.learn(stream).tobytes()
    own = {v.ref() for v in measured.update.variables} - {
        v.ref() for v in measured.update.base.variables
    }
    rest = [v for v in measured.variables if v.ref() not in own]
    for a, b in zip(plain.variables, rest, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    report = measured.update.report()
    # The head starts at 0, so that the first batch has no gradient in the trunk; it is left out.
    assert report["measurements"] == 2
    count = np.sum(report["count"], axis=0)
    np.testing.assert_array_equal(count, [[2, 1, 2], [1, 1, 1], [2, 1, 2]])
    assert np.isfinite(report["affinity"]).all()
    assert np.abs(report["affinity"]).max() > 1e-5
    cosine = np.array(report["cosine"])
    np.testing.assert_allclose(cosine, cosine.T, atol=1e-5)
    np.testing.assert_allclose(np.diag(cosine), 1.0, atol=1e-5)


def test_the_published_affinities_give_the_published_groups() -> None:
    matrix = taskonomy()
    for budget, groups, score in (
        (1, {(0, 1, 2, 3, 4)}, 0.12929),
        (2, {(3, 4), (0, 1, 2)}, 0.32169),
        (3, {(0, 1), (1, 2), (3, 4)}, 0.34867),
    ):
        cover = best_cover(matrix, budget)
        assert set(cover.groups) == groups
        assert cover.score / 5 == pytest.approx(score, abs=2e-5)
    runner_up = cover_of(matrix, [(3, 4), (0, 1, 2, 4)], FORBIDDEN)
    assert runner_up.score / 5 == pytest.approx(0.29131, abs=2e-5)
    # Depth is in two groups and served by the one that suits it better.
    three = best_cover(matrix, 3)
    assert three.groups[three.served[1]] == (0, 1)
    assert best_cover(matrix.T, 3).score / 5 == pytest.approx(0.38388, abs=2e-5)


def brute_force(matrix: np.ndarray, budget: int, alone: float) -> float:
    n = len(matrix)
    groups = [g for k in range(1, n + 1) for g in itertools.combinations(range(n), k)]
    return max(
        cover_of(matrix, chosen, alone).score
        for size in range(1, budget + 1)
        for chosen in itertools.combinations(groups, size)
        if set().union(*chosen) == set(range(n))
    )


def test_the_solver_is_exact() -> None:
    rng = np.random.default_rng(0)
    for trial in range(30):
        n = 2 + trial % 3
        matrix = rng.normal(size=(n, n))
        scores = [best_cover(matrix, b, 0.0).score for b in (1, 2, 3)]
        assert scores == sorted(scores)
        for budget, score in zip((1, 2, 3), scores, strict=True):
            assert score == pytest.approx(brute_force(matrix, budget, 0.0), abs=1e-9)
    block = np.where(np.arange(6)[:, None] % 2 == np.arange(6) % 2, 1.0, -1.0)
    assert set(best_cover(block, 2).groups) == {(0, 2, 4), (1, 3, 5)}
    bad = -np.ones((4, 4))
    assert all(len(group) > 1 for group in best_cover(bad, 4).groups)
    assert best_cover(bad, 4, alone=0.0).groups == ((0,), (1,), (2,), (3,))
    assert len(list(partitions(4))) == 15


def test_stability_counts_the_choices_of_resampled_windows() -> None:
    ratio = np.stack([taskonomy()] * 5)
    assert stability(ratio, np.ones_like(ratio), 2, FORBIDDEN, 5) == {((3, 4), (0, 1, 2)): 1.0}


def test_one_group_is_the_recipe_itself(together: Learner) -> None:
    one = Learner(compose(TINY, [TaskGrouping([[0, 1, 2]])]), SCHEMA, 2, LABELS, n_batches=6)
    one.learn(chunk(one))
    assert one.n_parameters() == together.n_parameters()
    second = chunk(one, 1)
    assert one.learn(second).tobytes() == together.learn(second).tobytes()


def test_a_group_learns_what_it_would_alone() -> None:
    recipe = compose(TINY, [TaskGrouping([[0, 2], [1]])])
    both = Learner(recipe, SCHEMA, seed=2, labels=LABELS, n_batches=6)
    alone = Learner(TINY, SCHEMA, seed=2, labels=("click", "share"), n_batches=6)
    alone.table.embedding.assign(both.table.embedding[:, :4])
    stream = chunk(both)
    both.learn(stream)
    alone.learn(stream._replace(labels=stream.labels[..., [0, 2]].copy()))
    other = chunk(both, 1)
    ours = both.predict(other.ids[0], other.numeric[0])[:, [0, 2]]
    np.testing.assert_allclose(ours, alone.predict(other.ids[0], other.numeric[0]), atol=1e-5)


def test_bad_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="label 1 is in no group"):
        TaskGrouping([[0], [2]])
    with pytest.raises(ConfigError, match="served has to name"):
        TaskGrouping([[0, 1], [2]], [0, 0, 0])
    with pytest.raises(ConfigError, match="distinct label numbers"):
        TaskGrouping([[0, 0]])
    with pytest.raises(ConfigError, match="tasks must be at least 2"):
        TaskAffinity(tasks=1)
    with pytest.raises(ConfigError, match="square matrix"):
        best_cover(np.zeros((2, 3)), 1)
    with pytest.raises(ModuleError, match="groups are given for 2 labels, but 3"):
        Learner(compose(TINY, [TaskGrouping([[0], [1]])]), SCHEMA, labels=LABELS)
    learner = Learner(compose(TINY, [TaskAffinity(tasks=2)]), SCHEMA, 0, LABELS, n_batches=1)
    with pytest.raises(ModuleError, match="tasks = 2, but 3 labels"):
        learner.learn(chunk(learner))


CLICKS = ("click", "like")
AFFINITY = module_checks(TaskAffinity(every=3, first=0), labels=CLICKS)
GROUPS = module_checks(
    TaskGrouping([[0], [1]]), replace(tiny_recipe(), table_rows=1024), labels=CLICKS
)


@pytest.mark.parametrize("check", AFFINITY, ids=str)
def test_task_affinity_keeps_the_contract(check) -> None:
    check()


@pytest.mark.parametrize("check", GROUPS, ids=str)
def test_task_grouping_keeps_the_contract(check) -> None:
    check()
