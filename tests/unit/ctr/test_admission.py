import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ctr.calibration import NoCalibration
from ctr.data.examples import Chunk
from ctr.learner import Learner
from ctr.models import Linear
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema

RECIPE = Recipe(model=Linear(gains=False), batch_size=4, table_rows=64, calibrator=NoCalibration())
HOUR = 3_600_000_000


def learner(**declared: float) -> Learner:
    schema = Schema("s", (Feature("user", **declared),), (Label("click"),))
    return Learner(RECIPE, schema)


def learn(model: Learner, ids: list[int], time_us: int) -> np.ndarray:
    """One batch of equal event times in which everybody clicks."""
    return learn_pairs(model, [[one] for one in ids], time_us)


def learn_pairs(model: Learner, ids: list[list[int]], time_us: int) -> np.ndarray:
    """The same with as many ids per example as there are slots."""
    k, b = model.chunk_shape
    rows = np.zeros((k, b, len(ids[0])), np.int32)
    weights = np.zeros((k, b), np.float32)
    rows[0, : len(ids)], weights[0, : len(ids)] = ids, 1.0
    side = {"event_time": np.full((k, b), time_us, np.int64)} if model.side else {}
    chunk = Chunk(rows, np.zeros((k, b, 0), np.float32), np.ones((k, b, 1), np.float32),
                  weights, side)  # fmt: skip
    return model.learn(chunk)[0, : len(ids), 0]


def row(model: Learner, index: int) -> float:
    return float(model.table.wide[index, 0])


def test_nothing_is_kept_where_nothing_is_declared() -> None:
    assert learner().admission is None
    assert learner().side == ()


def test_an_id_gets_its_row_after_the_declared_number_of_occurrences() -> None:
    model = learner(admission=3)
    rare = int(model.admission._rare[0])
    learn(model, [5], HOUR)
    learn(model, [5], HOUR)
    assert row(model, 5) == 0.0
    assert row(model, rare) > 0.0
    learn(model, [5], HOUR)
    assert row(model, 5) > 0.0


def test_serving_maps_unknown_ids_as_training_does() -> None:
    model = learner(admission=2)
    rare = int(model.admission._rare[0])
    learn(model, [5, 5, 7], HOUR)
    empty = np.zeros((2, 0), np.float32)
    known, unknown = model.predict(np.array([[5], [9]], np.int32), empty)[:, 0]
    logit = float(model.model.wide.bias[0])
    assert known == pytest.approx(float(tf.sigmoid(logit + row(model, 5))))
    assert unknown == pytest.approx(float(tf.sigmoid(logit + row(model, rare))))


def test_an_id_that_was_silent_too_long_starts_anew() -> None:
    model = learner(expiry_s=3600.0)
    learn(model, [5, 6], HOUR)
    before = row(model, 6)
    assert row(model, 5) > 0.0
    learn(model, [5], 3 * HOUR)
    assert row(model, 5) == 0.0, "its row is cleared when it comes back"
    assert row(model, 6) == before
    start = RECIPE.optimizer.linear.initial_accumulator
    assert float(model.table.slots[1].accumulator[5, 0]) == start
    learn(model, [5], 3 * HOUR)
    assert row(model, 5) > 0.0
    use = model.table_use()["user"]
    assert (use["admitted"], use["waiting"], use["expired"], use["returns"]) == (1, 0, 1, 1)


def test_padding_does_not_count_as_an_occurrence() -> None:
    model = learner(admission=2)
    learn(model, [5], HOUR)
    assert int(model.admission.count[5]) == 1
    assert int(tf.reduce_sum(model.admission.count[1:])) == 1


def test_every_row_and_occurrence_is_accounted_for() -> None:
    features = (Feature("user", admission=3, expiry_s=3600.0), Feature("ad"))
    model = Learner(RECIPE, Schema("s", features, (Label("click"),)))
    seen = ([1, 11], [1, 12], [1, 11], [2, 11], [3, 11], [2, 0])
    for hour, pairs in ((1, seen[:4]), (1, seen[4:]), (3, [[1, 11]]), (3, [[4, 11]])):
        learn_pairs(model, pairs, hour * HOUR)
    use = model.table_use()
    assert list(use) == ["user"], "the other feature declares nothing"
    # Users 2 and 3 were silent; 1 came back, had its row cleared and waits again, as 4 does.
    assert use["user"] == {
        "admitted": 0, "waiting": 2, "expired": 2, "occurrences": 8, "shared": 8, "returns": 1,
    }  # fmt: skip
    learn_pairs(model, [[4, 11]], 3 * HOUR)
    learn_pairs(model, [[4, 11]], 3 * HOUR)
    assert model.table_use()["user"] == {
        "admitted": 1, "waiting": 1, "expired": 2, "occurrences": 10, "shared": 9, "returns": 1,
    }  # fmt: skip


def test_a_declared_feature_changes_the_schema_fingerprint() -> None:
    plain, declared = Feature("user"), Feature("user", admission=2)
    schema = Schema("s", (plain,), (Label("click"),))
    assert dataclasses.replace(schema, features=(declared,)).fingerprint() != schema.fingerprint()
