"""TPU embedding tables train as the ordinary table does, in one program of fixed shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.config import override
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.optimizers import AdaGrad, Ftrl
from ctr.recipe import named_recipe
from ctr.testing.stream import cut_chunks, encoded, tiny_recipe, tiny_stream
from ctr.tpu_table import TpuTable, feature_config

PER_LAUNCH = 4


def made(ordinary: bool, recipe=None) -> tuple[Learner, list]:
    schema, rows = tiny_stream(512, ())
    table = {} if ordinary else {"table": TpuTable}
    learner = Learner(recipe or tiny_recipe(), schema, 1, n_batches=PER_LAUNCH, **table)
    return learner, cut_chunks(learner, encoded(learner, rows))


def test_it_looks_up_and_learns_as_the_ordinary_table() -> None:
    (usual, chunks), (tpu, _) = made(True), made(False)
    ids = tf.constant(chunks[0][1].ids[0])
    for ours, theirs in zip(usual.table.lookup(ids), tpu.table.lookup(ids), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for _, chunk in chunks:
        np.testing.assert_array_equal(usual.learn(chunk), tpu.learn(chunk))
    np.testing.assert_array_equal(usual.table.embedding, tpu.table.embedding)
    for ours, theirs in zip(usual.table.slots, tpu.table.slots, strict=True):
        np.testing.assert_array_equal(ours.accumulator, theirs.accumulator)
    assert float(tf.reduce_max(tf.abs(tpu.table.wide))) > 0.0
    assert tpu.n_traces == 1


def test_the_slots_are_those_of_the_tpu() -> None:
    learner, chunks = made(False)
    before = learner.table.tpu["embedding"]._variables["embedding"]["accumulators"].numpy()
    learner.learn(chunks[0][1])
    after = learner.table.tpu["embedding"]._variables["embedding"]["accumulators"].numpy()
    assert np.any(after > before)


def test_a_linear_model_has_no_embeddings() -> None:
    recipe = override(named_recipe("lr"), ["table_rows=2048", "batch_size=32"])
    learner, chunks = made(False, recipe)
    usual, _ = made(True, recipe)
    assert set(learner.table.tpu) == {"wide"}
    np.testing.assert_array_equal(usual.learn(chunks[0][1]), learner.learn(chunks[0][1]))


def test_what_a_tpu_is_told() -> None:
    learner, chunks = made(True)
    optimizers = {"embedding": AdaGrad(0.1), "wide": AdaGrad(0.15, 1.0, split_rate=True)}
    ids = chunks[0][1].ids[0]
    config = feature_config(learner.table, *ids.shape, optimizers, n_inputs=9)
    assert [f.output_shape for f in config.values()] == [list(ids.shape)] * 2
    assert config["embedding"].table.vocabulary_size == 2048
    assert config["embedding"].table.dim == learner.model.dim
    assert config["wide"].table.optimizer.learning_rate == pytest.approx(0.05)
    assert config["wide"].table.optimizer.initial_accumulator_value == 1.0
    # On a CPU the class keeps its tables in variables, which its serving look-up reads.
    embedding = tf.tpu.experimental.embedding
    stored = embedding.TPUEmbedding(config, embedding.Adagrad(0.1))
    stored.build()
    features = {name: tf.constant(ids) for name in config}
    found = embedding.serving_embedding_lookup(features, None, stored.embedding_tables, config)
    for name, ours in learner.table.lookup(ids)._asdict().items():
        np.testing.assert_array_equal(found[name], ours)


def test_other_row_optimizers_are_refused() -> None:
    recipe = tiny_recipe()
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, linear=Ftrl()))
    with pytest.raises(ConfigError, match="AdaGrad"):
        made(False, recipe)
