from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from ctr.encoding import Encoder
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.models import Linear, Mlp
from ctr.models.factorized import Factorized
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.ui_factorization import in_treatment
from serving.signatures import QUALITY, serving_graph
from serving.treatment import parse_treatment, usual_treatment

SCHEMA = Schema(
    name="ui",
    features=(
        Feature("ad_id"),
        Feature("bid", kind="numeric"),
        Feature("slot", ui=True),
        Feature("size", kind="numeric", ui=True),
        Feature("badges", kind="bag", max_length=3, ui=True),
        Feature("slot_x_slot", cross=("slot", "slot"), ui=True),
    ),
    labels=(Label("click"),),
)
ROWS = pa.RecordBatch.from_pydict(
    {
        "ad_id": ["a", "b", "c", "d"],
        "bid": [1.0, 2.0, None, 4.0],
        "slot": ["1", "2", "1", None],
        "size": [10.0, 20.0, 10.0, None],
        "badges": [["new", "sale"], [], ["new", "sale"], None],
    }
)
TREATMENT = {"slot": "1", "size": 10.0, "badges": ["new", "sale"]}


@pytest.fixture(scope="module", params=["linear", "factorized"])
def learner(request: pytest.FixtureRequest) -> Learner:
    tower = Mlp(dim=2, hidden=(4,))
    model = Factorized(tower, dims=2, hidden=(3,)) if request.param == "factorized" else Linear()
    built = Learner(Recipe(model=model, table_rows=256, batch_size=4), SCHEMA, seed=1)
    for place, variable in enumerate([*built.model.trainable_variables, built.table.wide]):
        noise = tf.random.stateless_uniform(variable.shape, [1, place], -0.5, 0.5)
        variable.assign_add(tf.cast(noise, variable.dtype))
    return built


def run(learner: Learner, rows: pa.RecordBatch) -> dict[str, np.ndarray]:
    traced = serving_graph(learner, TREATMENT).signatures[QUALITY]
    specs = learner.encoder.signature()
    raw = learner.encoder.raw_columns(rows)
    found = traced(**{name: tf.constant(v, specs[name].dtype) for name, v in raw.items()})
    return {name: value.numpy() for name, value in found.items()}


def test_quality_is_the_prediction_in_the_reference_treatment(learner: Learner) -> None:
    found = run(learner, ROWS)
    encoded = learner.encoder.encode(ROWS)
    shown = learner.predict(encoded.ids, encoded.numeric)[:, 0]
    same = in_treatment(learner.encoder, encoded.ids, encoded.numeric, TREATMENT)
    want = learner.predict(*same)[:, 0]
    np.testing.assert_allclose(found["probabilities"], shown, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["quality_probabilities"], want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tf.sigmoid(found["quality_logits"]), want, rtol=0, atol=1e-6)
    # Rows 0 and 2 were shown in the reference treatment, the others were not.
    differs = np.abs(found["probabilities"] - found["quality_probabilities"])
    assert differs[[0, 2]].max() < 1e-6
    assert differs[[1, 3]].min() > 1e-4


def test_a_factorized_model_gives_its_vectors(learner: Learner) -> None:
    found = run(learner, ROWS)
    if isinstance(learner.recipe.model, Linear):
        assert "quality" not in found
        return
    assert found["quality"].shape == found["presentation"].shape == (4, 3)
    # What is the same in presentation has the same vector, whatever the ad; and only there.
    assert np.array_equal(found["presentation"][0], found["presentation"][2])
    assert not np.array_equal(found["presentation"][0], found["presentation"][1])
    # The vectors are enough to predict: without a calibrator's say they give the logits.
    quality, presentation = found["quality"], found["presentation"]
    inner = quality[:, 0] + presentation[:, 0] + (quality[:, 1:] * presentation[:, 1:]).sum(axis=1)
    np.testing.assert_allclose(found["logits"], inner, rtol=0, atol=1e-5)


def test_without_a_treatment_there_is_no_such_signature(learner: Learner) -> None:
    assert QUALITY not in serving_graph(learner, {}).signatures


def test_the_usual_treatment_is_the_most_frequent_combination() -> None:
    encoder = Encoder(SCHEMA, 64)
    assert usual_treatment(encoder, pa.Table.from_batches([ROWS])) == TREATMENT
    missing = pa.Table.from_batches([ROWS.slice(3)])
    assert usual_treatment(encoder, missing) == {"slot": None, "size": None, "badges": []}


def test_a_schema_without_presentation_has_no_treatment() -> None:
    plain = Schema("plain", (Feature("ad_id"),), (Label("click"),))
    table = pa.table({"ad_id": ["a"]})
    assert usual_treatment(Encoder(plain, 64), table) == {}
    with pytest.raises(ConfigError, match="marks no feature"):
        parse_treatment(plain, ["slot=1"])


def test_treatments_on_the_command_line() -> None:
    found = parse_treatment(SCHEMA, ["size=10", "slot=1", "badges=new,sale"])
    assert found == TREATMENT
    for given, message in (
        (["slot=1", "size=10"], "badges as well"),
        (["slot=1", "size=big", "badges="], "expected a number"),
        (["slto=1"], "did you mean 'slot'"),
        (["ad_id=1"], "of a presentation feature"),
        (["slot"], "expected FEATURE=VALUE"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_treatment(SCHEMA, given)
