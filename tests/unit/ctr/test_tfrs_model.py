from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import ctr
from ctr.bench.stream import bench_schema, generate, write_shard
from ctr.data import manifest
from ctr.data.reader import ShardReader
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.models import Mlp, WideDcn
from ctr.module import compose
from ctr.optimizers.shampoo import ShampooState
from ctr.recipe import Recipe
from ctr.techniques.shampoo import ShampooTower
from tests.unit.ctr.conftest import state, weights_and_slots

N = 1000
RECIPE = Recipe(
    model=WideDcn(dim=4, cross_layers=1, cross_rank=4, hidden=(8,)),
    batch_size=64,
    table_rows=4096,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder, generate(N))
    return folder


@pytest.fixture(scope="module")
def fitted(data: Path) -> tuple[object, dict[str, list[float]], np.ndarray]:
    """A model after one epoch, its history, and what our own loop predicts and leaves."""
    model = ctr.as_tfrs_model(RECIPE, bench_schema())
    history = model.fit(ctr.as_dataset(data, model.learner), verbose=0).history
    learner = Learner(RECIPE, bench_schema())
    schema, shards = manifest.load(data)
    reader = ShardReader(data, schema, shards, learner.encoder, learner.labels)
    shape = learner.chunk_shape
    probs = [c.rows(learner.learn(c.chunk(shape))) for c in reader.chunks(shape)]
    assert weights_and_slots(model.learner) == weights_and_slots(learner)
    return model, history, np.concatenate(probs)


def test_fit_learns_the_same_bits_and_scores_progressively(fitted: tuple) -> None:
    _, history, probs = fitted
    labels = generate(N).label
    chosen = np.where(labels == 1, probs[:, 0], 1 - probs[:, 0])
    assert history["log_loss"] == pytest.approx([-np.log(chosen).mean()], rel=1e-4)
    assert 0.0 < history["auc"][0] < 1.0


def test_fit_does_the_work_between_launches(data: Path) -> None:
    shampoo = ShampooTower(every=2, statistics_every=1, warmup=0)
    recipe = compose(replace(RECIPE, model=Mlp(dim=4, hidden=(8,))), [shampoo])
    model = ctr.as_tfrs_model(recipe, bench_schema())
    dataset = ctr.as_dataset(data, model.learner)
    # Keras makes the function of the second fit out of that of the first.
    model.fit(dataset.take(6), verbose=0)
    model.fit(dataset.skip(6), verbose=0)
    learner = Learner(recipe, bench_schema(), n_batches=1)
    schema, shards = manifest.load(data)
    reader = ShardReader(data, schema, shards, learner.encoder, learner.labels)
    for examples in reader.chunks(learner.chunk_shape):
        learner.learn(examples.chunk(learner.chunk_shape))
    assert weights_and_slots(model.learner) == weights_and_slots(learner)
    tower = next(s for s in model.learner.update.states if isinstance(s, ShampooState))
    assert int(tower.first_roots_at.numpy()) > 0


def test_evaluate_and_predict_learn_nothing(fitted: tuple, data: Path) -> None:
    model, history, _ = fitted
    before = state(model.learner)
    dataset = ctr.as_dataset(data, model.learner)
    scores = model.evaluate(dataset, verbose=0, return_dict=True)
    probs = model.predict(dataset.map(lambda x, labels, weights: x), verbose=0)
    assert state(model.learner) == before
    assert probs.shape == (N, 1)
    # It has seen these examples by now.
    assert scores["auc"] > history["auc"][0]


def test_weights_count_in_the_metrics(fitted: tuple, data: Path) -> None:
    model, _, _ = fitted
    dataset = ctr.as_dataset(data, model.learner)

    def clicks_only(x: dict, labels: tf.Tensor, weights: tf.Tensor) -> tuple:
        return x, labels, weights * labels[:, 0]

    scores = model.evaluate(dataset.map(clicks_only), verbose=0, return_dict=True)
    probs = model.predict(dataset.map(lambda x, labels, weights: x), verbose=0)
    labels = generate(N).label
    assert scores["log_loss"] == pytest.approx(-np.log(probs[labels == 1]).mean(), rel=1e-4)


def test_the_recipe_brings_its_optimizer(fitted: tuple) -> None:
    with pytest.raises(ConfigError, match="brings its own"):
        fitted[0].compile(optimizer="adam")


def test_importing_ctr_does_not_import_tensorflow() -> None:
    code = "import ctr, sys; assert 'tensorflow' not in sys.modules; ctr.as_tfrs_model"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_of_ctr_stay_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = ctr.no_such_thing
