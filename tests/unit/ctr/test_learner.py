from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ctr.calibration import NoCalibration
from ctr.compilations import counted_compilations
from ctr.data.examples import Chunk
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.models import Dlrm, Linear, Mlp, WideDcn
from ctr.optimizers import AdaGrad, KerasOptimizer, Optimizers
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from tests.unit.ctr.conftest import BATCH, TABLE_ROWS, Learners, Stream, learn, state

MODELS = {
    "lr": Linear(),
    "wide_dcn": WideDcn(dim=4, cross_layers=1, cross_rank=2, hidden=(8,)),
    "dlrm": Dlrm(dim=4, bottom=(8,), hidden=(8,)),
    "mlp": Mlp(dim=4, hidden=(8,)),
}


def tiny(name: str) -> Recipe:
    return Recipe(model=MODELS[name], batch_size=BATCH, table_rows=TABLE_ROWS)


Planted = Callable[..., Stream]


def adagrad_logistic_regression(
    ids: np.ndarray, labels: np.ndarray, rate: float, start: float, bias_rate: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """The textbook, one example after the other."""
    weights, squares = np.zeros(TABLE_ROWS), np.full(TABLE_ROWS, start)
    bias, bias_squares, probs = 0.0, 0.1, []
    for row, label in zip(ids, labels, strict=True):
        prob = 1.0 / (1.0 + np.exp(-(weights[row] + bias)))
        probs.append(prob)
        gradient = prob - label
        squares[row] += gradient**2
        weights[row] -= rate * gradient / np.sqrt(squares[row])
        bias_squares += gradient**2
        bias -= bias_rate * gradient / np.sqrt(bias_squares + 1e-7)
    return np.array(probs), weights, bias


def test_lr_is_adagrad_logistic_regression() -> None:
    recipe = Recipe(
        model=Linear(gains=False),
        optimizer=Optimizers(
            linear=AdaGrad(0.1, 1.0), head=KerasOptimizer(rate=0.2, initial_accumulator=0.1)
        ),
        calibrator=NoCalibration(),
        batch_size=1,
        table_rows=TABLE_ROWS,
    )
    learner = Learner(recipe, Schema("one", (Feature("a"),), (Label("click"),)))
    rng = np.random.default_rng(3)
    n = 3 * learner.chunk_shape[0]
    ids = rng.integers(1, 8, n).astype(np.int32)
    labels = (rng.random(n) < ids / 10).astype(np.float32)
    ones = np.ones(n, np.float32)
    probs = learn(
        learner, Stream(ids[:, None], np.zeros((n, 0), np.float32), labels[:, None], ones)
    )
    expected, weights, bias = adagrad_logistic_regression(ids, labels, 0.1, 1.0, 0.2)
    np.testing.assert_allclose(probs[:, 0], expected, rtol=2e-5)
    np.testing.assert_allclose(learner.table.wide.numpy()[:, 0], weights, atol=1e-5)
    np.testing.assert_allclose(learner.model.wide.bias.numpy(), [bias], rtol=1e-5)


def test_deep_models_start_where_the_linear_one_is(
    learners: Learners, tiny_schema: Schema, planted: Planted
) -> None:
    wide = np.random.default_rng(0).normal(0.0, 1.0, (TABLE_ROWS, 1)).astype(np.float32)
    stream = planted(64)
    probs = []
    for name in MODELS:
        learner = learners(tiny(name), tiny_schema)
        learner.table.wide.assign(wide)
        probs.append(learner.predict(stream.ids, stream.numeric))
    assert np.ptp(probs[0]) > 0.1
    for other in probs[1:]:
        np.testing.assert_allclose(other, probs[0], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_recipe_learns(
    learners: Learners, tiny_schema: Schema, planted: Planted, name: str
) -> None:
    learner = learners(tiny(name), tiny_schema)
    stream = planted(4096)
    probs = learn(learner, stream)
    assert roc_auc_score(stream.labels[2048:, 0], probs[2048:, 0]) > 0.7
    assert np.isfinite(probs).all()
    assert probs[2048:].mean() == pytest.approx(stream.labels[2048:].mean(), rel=0.05)


def test_predictions_come_before_learning(
    learners: Learners, tiny_schema: Schema, planted: Planted
) -> None:
    learner = learners(tiny("wide_dcn"), tiny_schema)
    k, b = learner.chunk_shape
    stream = planted(2 * k * b)
    learn(learner, stream.cut(0, k * b))
    rest = stream.cut(k * b, 2 * k * b)
    before = learner.predict(rest.ids[:b], rest.numeric[:b])
    np.testing.assert_allclose(learn(learner, rest)[:b], before, atol=1e-6)
    after = learner.predict(rest.ids[:b], rest.numeric[:b])
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("name", ["lr", "wide_dcn"])
def test_padding_is_inert(
    learners: Learners, tiny_schema: Schema, planted: Planted, name: str
) -> None:
    stream = planted(1000)
    ends = []
    for padding in (None, planted(77, seed=5)):
        learner = learners(tiny(name), tiny_schema)
        ends.append((learn(learner, stream, padding).tobytes(), state(learner)))
    assert ends[0] == ends[1]
    assert int(learner.examples) == 1000


def test_rows_of_weight_0_change_nothing(
    learners: Learners, tiny_schema: Schema, planted: Planted
) -> None:
    learner = learners(tiny("wide_dcn"), tiny_schema)
    learn(learner, planted(500))
    before = state(learner)
    stream = planted(500, seed=1)
    learn(learner, dataclasses.replace(stream, weights=np.zeros_like(stream.weights)))
    changed = {name for name, value in state(learner).items() if value != before[name]}
    # Keras optimizers count their steps.
    assert all("iteration" in name for name in changed)


def test_unknown_labels_teach_nothing(
    learners: Learners, tiny_schema: Schema, planted: Planted
) -> None:
    learner = learners(tiny("wide_dcn"), tiny_schema)
    learn(learner, planted(500))
    learned = {v.ref() for v in (*learner.model.variables, *learner.table.variables)}
    learned |= {v.ref() for v in learner.calibrator.variables}
    before = [v.numpy().tobytes() for v in learner.variables if v.ref() in learned]
    stream = planted(500, seed=1)
    learn(learner, dataclasses.replace(stream, labels=np.full_like(stream.labels, -1.0)))
    after = [v.numpy().tobytes() for v in learner.variables if v.ref() in learned]
    # The information that slice biases remember may not change either.
    assert after == before


@pytest.mark.parametrize("name", ["lr", "wide_dcn"])
def test_no_input_makes_it_trace_or_compile_again(
    learners: Learners, tiny_schema: Schema, planted: Planted, name: str
) -> None:
    learner = learners(tiny(name), tiny_schema)
    learn(learner, planted(2048))
    with counted_compilations() as compiled:
        for n in (1, 31, 2048, 3000):
            stream = planted(n, seed=n)
            learn(learner, stream)
            learn(learner, dataclasses.replace(stream, weights=stream.weights * n))
            learn(learner, dataclasses.replace(stream, weights=np.zeros_like(stream.weights)))
    assert learner.n_traces == 1
    assert compiled.count == 0


def test_seed_decides_every_bit(learners: Learners, tiny_schema: Schema, planted: Planted) -> None:
    stream = planted(600)
    first = learners(tiny("wide_dcn"), tiny_schema)
    learn(first, stream)
    same = Learner(tiny("wide_dcn"), tiny_schema, seed=0)
    other = Learner(tiny("wide_dcn"), tiny_schema, seed=1)
    assert state(same) != state(other)
    learn(same, stream)
    assert state(same) == state(first)


def digest_of_a_run(threads: int) -> str:
    """Run in a process of its own by the test below."""
    import tensorflow as tf

    from ctr.bench.stream import bench_schema, generate

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    recipe = Recipe(model=WideDcn(dim=16, hidden=(64,)), batch_size=256, table_rows=10_007)
    learner = Learner(recipe, bench_schema())
    rows = generate(2048)
    ids = (rows.codes * 31 % 10_006 + 1).astype(np.int32)
    labels = rows.label.astype(np.float32)[:, None]
    learn(learner, Stream(ids, rows.numeric, labels, np.ones(2048, np.float32)))
    return hashlib.sha256(b"".join(state(learner).values())).hexdigest()


def test_threads_change_no_bit(repo_root: Path) -> None:
    digests = []
    for threads in (1, 2):
        code = (
            "import sys, ctr\n"
            f"sys.path.insert(0, {str(repo_root)!r})\n"
            "from tests.unit.ctr.test_learner import digest_of_a_run\n"
            f"print(digest_of_a_run({threads}))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        digests.append(done.stdout.strip())
    assert digests[0] == digests[1]


def test_several_labels(learners: Learners, tiny_schema: Schema, planted: Planted) -> None:
    learner = learners(tiny("wide_dcn"), tiny_schema, labels=("click", "buy"))
    stream = planted(4096, n_labels=2)
    probs = learn(learner, stream)
    assert probs.shape == (4096, 2)
    for t, other in ((0, 1), (1, 0)):
        own = roc_auc_score(stream.labels[2048:, t], probs[2048:, t])
        assert own > 0.7
        assert own > 0.02 + roc_auc_score(stream.labels[2048:, t], probs[2048:, other])


def test_a_label_it_does_not_have(tiny_schema: Schema) -> None:
    with pytest.raises(ConfigError, match="did you mean 'click'"):
        Learner(tiny("lr"), tiny_schema, labels=("clik",))


def test_parameters_are_counted(learners: Learners, tiny_schema: Schema) -> None:
    counts = learners(tiny("lr"), tiny_schema).n_parameters()
    # Bias, a weight per number, a gain per hashed feature.
    assert counts == {"table": TABLE_ROWS, "dense": 1 + 2 + 3}


@pytest.mark.parametrize("model", [Linear(), Mlp(dim=2, hidden=(4,))])
def test_a_stream_of_numbers_alone(model: Linear | Mlp) -> None:
    schema = Schema("numbers", (Feature("x", kind="numeric"),), (Label("click"),))
    learner = Learner(Recipe(model=model, table_rows=2, batch_size=16), schema, n_batches=2)
    x = np.random.default_rng(0).normal(size=(2, 16, 1)).astype(np.float32)
    chunk = Chunk(
        np.zeros((2, 16, 0), np.int32), x, (x > 0).astype(np.float32),
        np.ones((2, 16), np.float32), {},
    )  # fmt: skip
    for _ in range(20):
        prob = learner.learn(chunk)
    assert np.corrcoef(prob.ravel(), x.ravel())[0, 1] > 0.5
