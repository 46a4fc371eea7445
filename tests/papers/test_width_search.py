from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Reporting
from ctr.config import override
from ctr.data.examples import Chunk
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import Dlrm, Linear, Mlp, WideDcn
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.search.architectures import candidates
from ctr.search.controller import Controller
from ctr.search.super_network import reward
from ctr.simulator import WorldConfig, simulate_examples
from ctr.techniques.ensemble import EnsembleModule
from ctr.techniques.width_search import WidthSearch
from ctr.testing import Check, module_checks

WORLD = WorldConfig(
    days=1.0, n_users=100, n_queries=16, n_ads=32, n_advertisers=8, n_topics=4, dim=4
)
SEARCH = WidthSearch(
    target=0.85, widths=(0.5, 0.75, 1.0), ranks=(0.0, 0.25), warmup=320, samples=2, rate=0.1
)
TINY = Recipe(
    model=WideDcn(dim=4, cross_layers=1, cross_rank=4, hidden=(32, 16)),
    batch_size=32, table_rows=2048,
)  # fmt: skip


@pytest.mark.parametrize("check", module_checks(SEARCH, TINY), ids=str)
def test_it_keeps_the_contract(check: Check) -> None:
    check()


def learn(recipe: Recipe, n: int = 1600, seed: int = 3) -> tuple[Learner, np.ndarray]:
    simulated = simulate_examples(n, 1, WORLD)
    batch = simulated.examples.combine_chunks().to_batches()[0]
    learner = Learner(recipe, simulated.schema, seed, n_batches=10)
    encoded = learner.encoder.encode(batch)
    click = np.asarray(batch.column("click"), np.float32)
    k, b = learner.chunk_shape
    probs = []
    for start in range(0, n, k * b):
        part = slice(start, start + k * b)
        chunk = (
            encoded.ids[part].reshape(k, b, -1), encoded.numeric[part].reshape(k, b, -1),
            click[part].reshape(k, b, 1), np.ones([k, b], np.float32),
        )  # fmt: skip
        probs.append(learner.learn(Chunk(*chunk, {})).reshape(-1))
    return learner, np.concatenate(probs)


@pytest.mark.parametrize("rank", [0.0, 0.125])
def test_with_one_choice_it_is_the_plain_model(rank: float) -> None:
    """Also with a bottleneck, and although a second candidate is judged beside the first."""
    ranks = tuple(round(rank * n) for n in TINY.model.hidden)
    plain = Recipe(
        model=WideDcn(dim=4, cross_layers=1, cross_rank=4, hidden=(32, 16), ranks=ranks),
        batch_size=32, table_rows=2048,
    )  # fmt: skip
    single = WidthSearch(target=1.0, widths=(1.0,), ranks=(rank,), samples=2, warmup=0)
    ours, found = learn(compose(plain, [single]))
    theirs, expected = learn(plain)
    np.testing.assert_array_equal(found, expected)
    assert ours.n_parameters() == theirs.n_parameters()
    tower = ours.model.tower.layers
    kernels = [v for layer in tower for v in (layer.down, layer.up, layer.kernel) if v is not None]
    for kernel, other in zip(kernels, [layer.kernel for layer in theirs.model.hidden], strict=True):
        np.testing.assert_array_equal(kernel, other)


def matmul_macs(model: object, learner: Learner) -> int:
    """Multiply-adds of the matrix products in the graph of a forward pass of one example."""
    serve = tf.function(learner.logits).get_concrete_function(
        *(tf.TensorSpec([1, *s.shape[1:]], s.dtype) for s in learner.input_signature)
    )
    total = 0
    for op in serve.graph.get_operations():
        if op.type in ("MatMul", "BatchMatMulV2"):
            a, b = (tuple(x.shape) for x in op.inputs)
            n = b[-2] if op.get_attr("transpose_b" if op.type == "MatMul" else "adj_y") else b[-1]
            total += math.prod(a) * n
    return total


@pytest.mark.parametrize(
    "model",
    [
        WideDcn(dim=4, cross_layers=2, cross_rank=3, hidden=(24, 12)),
        WideDcn(dim=4, cross_layers=1, cross_rank=999, hidden=(24, 12), ranks=(4, 2)),
        Mlp(dim=4, hidden=(16,)),
        Dlrm(dim=4, hidden=(16, 8), bottom=(8,)),
    ],
)
def test_cost_model_counts_what_the_graph_computes(model) -> None:
    schema = simulate_examples(100, 1, WORLD).schema

    def built(config) -> Learner:
        return Learner(Recipe(model=config, batch_size=32, table_rows=2048), schema)

    learner = built(model)
    inner = learner.model
    found = candidates(
        inner.n_tower_inputs, model.hidden, model.ranks, (0.5, 1.0), (0.0, 0.25), 1,
        inner.macs_beside,
    )  # fmt: skip
    base = matmul_macs(inner, learner)
    rng = np.random.default_rng(0)
    for number in rng.choice(len(found.cost), 3, replace=False):
        recipe = override(learner.recipe, found.settings(number))
        other = built(recipe.model)
        ratio = matmul_macs(other.model, other) / base
        assert found.cost[number] == pytest.approx(ratio, rel=1e-6), found.settings(number)
    if not model.ranks:
        whole = (found.widths == model.hidden).all(1) & (found.ranks == 0).all(1)
        assert set(found.cost[whole]) == {1.0}


def test_reward_is_symmetric_around_the_target() -> None:
    accuracy = tf.constant([-0.6, -0.6, -0.6, -0.5])
    cost = tf.constant([0.9, 0.81, 0.99, 0.9])
    found = reward(accuracy, cost, 0.9, -0.5)
    np.testing.assert_allclose(found, [-0.6, -0.65, -0.65, -0.5], rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
def test_one_step_is_the_formula(samples: int) -> None:
    controller = Controller([2, 3], rate=0.5)
    chosen = tf.constant([[0, 2], [1, 1], [0, 0]][:samples])
    rewards = [1.0, 4.0, 2.0][:samples]
    if samples == 1:  # the moving average begins with the first reward, so the second one moves
        controller.learn(chosen, tf.constant([2.0]), tf.constant(True), tf.constant(False))
    controller.learn(chosen, tf.constant(rewards), tf.constant(True), tf.constant(True))
    baselines = [2.0] if samples == 1 else [(sum(rewards) - r) / 2 for r in rewards]
    expected = np.zeros([2, 3])
    for (a, b), r, base in zip(chosen.numpy(), rewards, baselines, strict=True):
        towards = np.array([[-0.5, -0.5, 0.0], [-1 / 3] * 3])
        towards[0, a] += 1.0
        towards[1, b] += 1.0
        expected += (r - base) * towards / samples
    # The first step of Adam without momentum is the sign of the gradient.
    np.testing.assert_allclose(controller.logits, 0.5 * np.sign(expected), atol=1e-5)
    if samples == 1:
        assert float(controller.average_reward) == pytest.approx(0.95 * 2.0 + 0.05 * 1.0)


@cache
def bandit(samples: int, seed: int, target: float, gamma: float) -> tuple[int, int, float]:
    """Returns the choice, the best candidate, and the expected cost after 1,500 noisy steps."""
    found = candidates(64, (32, 16), (), (0.25, 0.5, 0.75, 1.0), (0.0, 0.125), 1, 500.0)
    rng = np.random.default_rng(7)
    value = np.zeros(len(found.cost))
    for d, options in enumerate(found.options):
        value += rng.normal(0.0, 0.004, len(options))[found.choices[:, d]]
    expected = value + gamma * np.abs(found.cost / target - 1.0)
    controller = Controller([len(o) for o in found.options], rate=0.03)
    sizes = [len(o) for o in found.options]
    accuracy, cost = tf.constant(value, tf.float32), tf.constant(found.cost)

    @tf.function(jit_compile=True)
    def steps() -> None:
        for t in tf.range(1500):
            moment = tf.stack([tf.constant(seed, tf.int64), tf.cast(t, tf.int64)])
            chosen = controller.sample(samples, moment)
            strides = tf.constant(np.append(np.cumprod(sizes[:0:-1])[::-1], 1), tf.int32)
            number = tf.reduce_sum(chosen * strides, axis=1)
            # Noise of a batch that all candidates share, and a little of their own.
            common = 0.03 * tf.random.stateless_normal([1], moment + 1)
            own = 0.002 * tf.random.stateless_normal([samples], moment + 2)
            total = reward(
                tf.gather(accuracy, number) + common + own, tf.gather(cost, number), target, gamma
            )
            controller.learn(chosen, total, tf.constant(True), tf.constant(True))

    steps()
    probs = controller.probabilities()
    likely = np.prod([p[found.choices[:, d]] for d, p in enumerate(probs)], axis=0)
    return int(likely.argmax()), int(expected.argmax()), float(likely @ found.cost)


def test_reinforce_finds_the_planted_best_candidate_at_the_target_cost() -> None:
    for seed in range(2):
        chosen, best, cost = bandit(2, seed, 0.85, -0.3)
        found = candidates(64, (32, 16), (), (0.25, 0.5, 0.75, 1.0), (0.0, 0.125), 1, 500.0)
        assert found.cost[chosen] == pytest.approx(found.cost[best], rel=0.02)
        assert cost == pytest.approx(0.85, rel=0.02)


def test_other_candidates_of_the_batch_are_the_better_baseline() -> None:
    """With one candidate per step the noise of the batch drowns what candidates differ by."""
    hits = {s: [bandit(s, seed, 0.85, -0.3)[2] for seed in range(2)] for s in (1, 2)}
    error = {s: np.mean(np.abs(np.array(costs) / 0.85 - 1.0)) for s, costs in hits.items()}
    assert error[2] < error[1], error


@pytest.fixture(scope="module")
def searched() -> Learner:
    return learn(compose(TINY, [SEARCH]))[0]


def test_masks_are_the_smaller_tower(searched: Learner) -> None:
    """A candidate's prediction is that of a tower which holds only its part of the weights."""
    model = searched.model
    found = model.architectures
    number = int(np.flatnonzero((found.widths == [16, 12]).all(1) & (found.ranks[:, 0] > 0))[0])
    x = tf.random.stateless_normal([8, model.base.n_tower_inputs], [1, 2])
    ours = model.tower(x, tf.constant(found.widths[number]), tf.constant(found.ranks[number]))
    first, second = model.tower.layers
    k = found.ranks[number, 0]
    h = tf.nn.relu(x @ first.down[:, :k] @ first.up[:k, :16] + first.bias[:16])
    low = found.ranks[number, 1]
    product = second.kernel[:16, :12] if not low else second.down[:16, :low] @ second.up[:low, :12]
    h = tf.nn.relu(h @ product + second.bias[:12])
    np.testing.assert_allclose(ours[:, :12], h, atol=1e-5)
    assert not np.any(ours[:, 12:])


def test_the_report_says_what_was_found(searched: Learner) -> None:
    (found,) = [part for part in searched.submodules if isinstance(part, Reporting)]
    report = found.report()
    assert abs(report["cost"] / 0.85 - 1.0) <= 0.02
    assert report["settings"][0] == f"model.hidden={report['hidden']}"
    assert report["entropy"]["nats"][0] > report["entropy"]["nats"][-1] > 0.0
    steps = report["entropy"]["batches"]
    assert steps == sorted(steps)
    assert steps[-1] == 50
    for probs in report["distribution"].values():
        assert sum(probs.values()) == pytest.approx(1.0, abs=1e-5)


def test_the_memory_of_the_controller_thins_out() -> None:
    controller = Controller([2], rate=0.1)
    for step in range(1, 400):
        controller.rewards.assign(step)
        controller.between_launches()
    steps, entropies = controller.entropies()
    assert 32 <= len(steps) == len(entropies) <= 64
    assert set(np.diff(steps)) == {8}
    assert entropies[0] == [pytest.approx(math.log(2))]


def test_bad_settings_are_refused_with_a_sentence() -> None:
    for bad in ({"widths": (0.0, 1.0)}, {"widths": ()}, {"ranks": (-0.5,)}):
        with pytest.raises(ConfigError, match="must be shares of a layer's units"):
            WidthSearch(**bad)
    for bad in ({"target": 0.0}, {"gamma": 0.1}, {"rate": 0.0}):
        with pytest.raises(ConfigError, match="gamma below 0"):
            WidthSearch(**bad)
    with pytest.raises(ConfigError, match="samples must be at least 1"):
        WidthSearch(samples=0)
    with pytest.raises(ModuleError, match="Linear has none"):
        compose(Recipe(model=Linear()), [WidthSearch()])
    with pytest.raises(ModuleError, match="Ensemble has none"):
        compose(Recipe(), [EnsembleModule(2), WidthSearch()])
    with pytest.raises(ModuleError, match="needs a model that is SuperNetwork"):
        compose(Recipe(), [WidthSearch(), EnsembleModule(2)])
    with pytest.raises(ConfigError, match=r"no tower costs within 2% of 3"):
        candidates(64, (32,), (), (0.5, 1.0), (0.0,), 1, 0.0).near(3.0)
    with pytest.raises(ConfigError, match="more than 65,536"):
        candidates(64, (32,) * 5, (), (0.2, 0.4, 0.6, 0.8, 1.0), (0.0, 0.1, 0.2), 1, 0.0)
