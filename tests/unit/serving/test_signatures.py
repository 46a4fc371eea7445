from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from ctr.config import override
from ctr.learner import Learner
from ctr.recipe import named_recipe
from ctr.schema import Feature, Label, Schema
from serving.signatures import DEFAULT, EXAMPLES, ServingGraph, serving_graph

SCHEMA = Schema(
    name="everything",
    features=(
        Feature("user_id"),
        Feature("hour"),
        Feature("user_x_hour", cross=("user_id", "hour")),
        Feature("price", kind="numeric", log=True),
        Feature("age", kind="numeric", bins=(18.0, 30.0, 65.0)),
        Feature("tags", kind="bag", max_length=3),
        Feature("path", kind="bag", separator="/", max_length=4),
        Feature("title", kind="bag", text=True, ngrams=2, max_length=6),
    ),
    labels=(Label("click"), Label("buy")),
)
ROWS = pa.RecordBatch.from_pydict(
    {
        "user_id": ["u1", "Ünï", None, ""],
        "hour": [1, 2, 3, None],
        "price": pa.array([1.5, None, float("nan"), float("inf")], pa.float32()),
        "age": pa.array([18.0, 17.9, None, 99.0], pa.float32()),
        "tags": [["a", "b", "c", "d"], [], None, ["a", ""]],
        "path": ["/x/y//z", "", None, "x"],
        "title": ["Red Shoes, size 9", "...", None, "ÄPFEL und birnen"],
    }
)


@pytest.fixture(scope="module")
def learner() -> Learner:
    built = Learner(override(named_recipe("wide_dcn"), ["table_rows=512"]), SCHEMA, seed=3)
    # An untrained model predicts the same for all rows.
    for variable in built.model.trainable_variables:
        noise = tf.random.stateless_uniform(variable.shape, [1, 2], -0.5, 0.5)
        variable.assign_add(tf.cast(noise, variable.dtype))
    built.standardizer.mean.assign([0.3])
    return built


@pytest.fixture(scope="module")
def graph(learner: Learner) -> ServingGraph:
    return serving_graph(learner)


@pytest.fixture(scope="module")
def loaded(graph: ServingGraph, tmp_path_factory: pytest.TempPathFactory) -> tf.Module:
    folder = tmp_path_factory.mktemp("model")
    tf.saved_model.save(graph.module, str(folder), signatures=graph.signatures)
    return tf.saved_model.load(str(folder))


def expected(learner: Learner, rows: pa.RecordBatch = ROWS) -> np.ndarray:
    encoded = learner.encoder.encode(rows)
    return learner.predict(encoded.ids, encoded.numeric)[:, 0]


def example(**features: list) -> bytes:
    def feature(values: list) -> tf.train.Feature:
        if all(isinstance(value, float) for value in values):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        encoded = [value.encode() for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

    table = {name: feature(values) for name, values in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=table)).SerializeToString()


def test_inputs_are_named_like_the_columns(loaded: tf.Module) -> None:
    taken = loaded.signatures[DEFAULT].structured_input_signature[1]
    assert set(taken) == {f.name for f in SCHEMA.features if not f.cross}


def test_raw_columns_give_the_learners_predictions(learner: Learner, loaded: tf.Module) -> None:
    raw = learner.encoder.raw_columns(ROWS)
    dtypes = {name: spec.dtype for name, spec in learner.encoder.signature().items()}
    tensors = {name: tf.constant(v, dtypes[name]) for name, v in raw.items()}
    out = loaded.signatures[DEFAULT](**tensors)
    want = expected(learner)
    assert len(set(want.tolist())) == len(want)  # the rows are told apart at all
    np.testing.assert_allclose(out["probabilities"], want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tf.sigmoid(out["logits"]), want, rtol=0, atol=1e-6)


def test_examples_with_absent_features_count_as_nulls(learner: Learner, loaded: tf.Module) -> None:
    examples = [
        example(**{"user_id": ["u1"], "hour": ["1"], "price": [1.5], "age": [18.0],
                   "tags": ["a", "b", "c", "d"], "path": ["/x/y//z"],
                   "title": ["Red Shoes, size 9"]}),
        example(**{"user_id": ["Ünï"], "hour": ["2"], "age": [17.899999618530273],
                   "title": ["..."]}),
        example(**{"hour": ["3"], "price": [float("nan")]}),
        example(age=[99.0], price=[float("inf")], tags=["a", ""], path=["x"],
                title=["ÄPFEL und birnen"]),
        example(),
    ]  # fmt: skip
    blank = pa.RecordBatch.from_pydict({name: pa.nulls(1) for name in learner.encoder.columns})
    want = np.concatenate([expected(learner), expected(learner, blank)])
    out = loaded.signatures[EXAMPLES](tf.constant(examples))
    np.testing.assert_allclose(out["probabilities"], want, rtol=0, atol=1e-6)


def test_a_batch_without_any_token_or_row_works(learner: Learner, loaded: tf.Module) -> None:
    out = loaded.signatures[EXAMPLES](tf.constant([example()]))
    assert np.isfinite(out["probabilities"].numpy()).all()
    none = loaded.signatures[EXAMPLES](tf.constant([], tf.string))
    assert none["probabilities"].shape == [0]


def test_only_what_a_prediction_reads_is_exported(learner: Learner, graph: ServingGraph) -> None:
    exported = {v.ref() for v in graph.module.variables}
    slots = [v for v in learner.variables if "accumulator" in v.name.lower()]
    assert slots
    assert not {v.ref() for v in slots} & exported
    assert {v.ref() for v in learner.model.variables} <= exported
    assert {v.ref() for v in learner.standardizer.variables} <= exported


def test_types_are_spelled_out(graph: ServingGraph) -> None:
    described = graph.describe()
    assert described[DEFAULT]["inputs"]["price"] == "float32[B]"
    assert described[DEFAULT]["inputs"]["tags"] == "string[B, L]"
    assert described[DEFAULT]["inputs"]["path"] == "string[B]"
    assert described[EXAMPLES]["inputs"] == {"examples": "string[B]"}
    assert described[EXAMPLES]["outputs"] == {"logits": "float32[B]", "probabilities": "float32[B]"}
