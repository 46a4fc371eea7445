"""Function matching: the distance, the views, who sees what, and what patience brings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Batch, Features, Forward, Rows
from ctr.encoding import Encoder
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import Ensemble
from ctr.module import compose
from ctr.schema import Feature, Label, Schema
from ctr.testing import tiny_recipe
from ctr.testing.checks import Bench
from ctr.update import Trace
from research_modules.patient_distillation.matching import distance
from research_modules.patient_distillation.module import PatientDistillation
from research_modules.patient_distillation.synth_ctr import Study
from research_modules.patient_distillation.views import Group, field_groups, mask, mixup, recombine

TINY = ("dim=4", "cross_layers=0", "hidden=[8]")
MODULE = PatientDistillation(reps=2, set=TINY, buffer=64)


def test_padding_is_inert_in_other_views_too() -> None:
    Bench(replace(MODULE, view="mixup", consistency="independent"), tiny_recipe(), ()).padding()


def kl_and_slope(z_s: np.ndarray, z_t: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    student = tf.constant(z_s, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = distance(student, tf.constant(z_t, tf.float64), t)
    return value.numpy(), tape.gradient(value, student).numpy()


@pytest.mark.parametrize("t", [0.5, 1.0, 3.0])
def test_distance_and_its_gradient(t: float) -> None:
    rng = np.random.default_rng(0)
    z_s, z_t = rng.normal(size=(2, 50, 1)) * 3
    value, slope = kl_and_slope(z_s, z_t, t)
    p, q = (1 / (1 + np.exp(-z / t)) for z in (z_t, z_s))
    expected = t**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    np.testing.assert_allclose(value, expected[:, 0], atol=1e-9)
    np.testing.assert_allclose(slope, t * (q - p), atol=1e-9)
    assert value.min() > 0


def test_distance_at_its_limits() -> None:
    z_s, z_t = np.array([[1.0], [-3.0]]), np.array([[-0.5], [2.0]])
    value, _ = kl_and_slope(z_s, z_t, 1e3)
    np.testing.assert_allclose(value, ((z_s - z_t) ** 2 / 8)[:, 0], rtol=1e-5)
    same, slope = kl_and_slope(z_t, z_t, 2.0)
    np.testing.assert_allclose(same, 0.0, atol=1e-12)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    saturated, _ = kl_and_slope(np.array([[300.0]]), np.array([[-300.0]]), 1.0)
    np.testing.assert_allclose(saturated, 300.0)


def test_two_teachers_are_their_mean_twice() -> None:
    z_s, first, second = np.random.default_rng(1).normal(size=(3, 20, 1))
    mean = np.mean([1 / (1 + np.exp(-z)) for z in (first, second)], axis=0)
    both = kl_and_slope(z_s, first, 1.0)[1] + kl_and_slope(z_s, second, 1.0)[1]
    average = kl_and_slope(z_s, np.log(mean / (1 - mean)), 1.0)[1]
    np.testing.assert_allclose(both, 2 * average, atol=1e-12)


def test_recombination_keeps_each_fields_values_and_groups_whole() -> None:
    ids = tf.constant(np.arange(40).reshape(8, 5), tf.int32)
    numeric = tf.constant(np.arange(16).reshape(8, 2), tf.float32)
    groups = [Group((0, 3), (1,)), Group((1,), ()), Group((2, 4), (0,))]
    new_ids, new_numeric = (
        x.numpy() for x in recombine(ids, numeric, groups, tf.constant([0, 3, 5]))
    )
    for old, new in ((ids.numpy(), new_ids), (numeric.numpy(), new_numeric)):
        np.testing.assert_array_equal(np.sort(new, axis=0), np.sort(old, axis=0))
    np.testing.assert_array_equal(new_ids[:, 0] // 5, new_ids[:, 3] // 5)
    np.testing.assert_array_equal(new_ids[:, 0] // 5, new_numeric[:, 1] // 2)
    np.testing.assert_array_equal(new_ids[:, 2] // 5, (np.arange(8) + 5) % 8)
    np.testing.assert_array_equal(new_ids[:, 2] // 5, new_numeric[:, 0] // 2)
    whole, _ = recombine(ids, numeric, groups, tf.constant([0, 0, 0]))
    np.testing.assert_array_equal(whole, ids)


def some_features() -> Features:
    rng = np.random.default_rng(2)
    vectors = tf.constant(rng.normal(size=(4, 3, 2)), tf.float32)
    linear = tf.constant(rng.normal(size=(4, 3, 1)), tf.float32)
    numeric = tf.constant(rng.normal(size=(4, 1)), tf.float32)
    ids = tf.zeros([4, 3], tf.int32)
    return Features(vectors, linear, numeric, ids, Rows(vectors, linear), tf.constant(0, tf.int64))


def test_mixup_pairs_all_parts_alike() -> None:
    features = some_features()
    for share in (0.25, 0.75):
        mixed = mixup(features, tf.constant(share))
        for part in ("vectors", "linear", "numeric"):
            x = getattr(features, part).numpy()
            expected = 0.75 * x + 0.25 * np.roll(x, 1, axis=0)
            np.testing.assert_allclose(getattr(mixed, part), expected, rtol=1e-6)
    whole = mixup(features, tf.constant(1.0))
    np.testing.assert_array_equal(whole.vectors, features.vectors)


def test_a_mask_hides_a_field_everywhere() -> None:
    features = some_features()
    keep = tf.constant([[1.0, 0.0, 1.0, 0.0]] * 4)
    hidden = mask(features, keep)
    assert not hidden.vectors.numpy()[:, 1].any()
    assert not hidden.linear.numpy()[:, 1].any()
    assert not hidden.numeric.numpy().any()
    np.testing.assert_array_equal(hidden.vectors[:, 2], features.vectors[:, 2])


def layout(*features: Feature):
    return Encoder(Schema("s", features, (Label("click"),)), 64).layout


def test_what_hangs_together_stays_together() -> None:
    fields = (Feature("a"), Feature("b"), Feature("c"), Feature("x", kind="numeric"))
    binned = Feature("x_bin", kind="numeric", column="x", bins=(1.0,))
    crossed = Feature("a_b", cross=("a", "b"))
    plain = field_groups(layout(*fields, binned), [])
    assert len(plain) == 4
    assert Group((3,), (0,)) in plain
    assert len(field_groups(layout(*fields, crossed), [])) == 3
    assert len(field_groups(layout(*fields), [("a", "c"), ("x", "a")])) == 2
    with pytest.raises(ModuleError, match="all features belong together"):
        field_groups(layout(Feature("a"), Feature("b"), crossed), [])
    with pytest.raises(ModuleError, match="'d', which is no feature"):
        field_groups(layout(*fields), [("a", "d")])


@pytest.mark.parametrize("consistency", ["same", "fixed", "independent"])
def test_who_sees_what(consistency: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = replace(MODULE, view="mask", consistency=consistency, reps=1, hidden=0.5)
    bench = Bench(module, tiny_recipe(), ())
    learner = bench._first_learner
    state = learner.update
    seen: dict[str, Features] = {}
    pair = learner.model
    student, teacher = pair.student, pair.teacher

    class Spy(tf.Module):
        def __init__(self, name: str, model) -> None:
            super().__init__()
            self.key, self.model = name, model

        def __call__(self, features: Features, training: bool):
            seen[self.key] = features
            return self.model(features, training)

    chunk = bench._chunks[0][1]
    ids = tf.constant(chunk.ids[0])
    numeric = learner.standardizer(tf.constant(chunk.numeric[0]))
    state.ids[: len(ids)].assign(ids)
    state.numeric[: len(ids)].assign(numeric)
    state.seen.assign(len(ids))
    pair.student, pair.teacher = Spy("student", student), Spy("teacher", teacher)
    place = tf.constant(5)
    mine = state._look_up(ids, numeric, place, tf.constant(0, tf.int64))
    again = state._look_up(ids, numeric, place, tf.constant(0, tf.int64))
    clean = state._look_up(ids, numeric, None, tf.constant(0, tf.int64))
    np.testing.assert_array_equal(mine.vectors, again.vectors)
    assert np.abs(mine.vectors - clean.vectors).max() > 0

    class Stop(Exception):
        pass

    def stop(self, trace: Trace) -> None:
        raise Stop

    batch = Batch(ids, numeric, tf.zeros([32, 1]), tf.ones([32]), {}, mine.seen)
    forward = Forward(tf.zeros([32, 1]), {})
    trace = Trace(tf.GradientTape(), batch, mine, forward, tf.zeros([32]), lambda rows: forward)
    monkeypatch.setattr(type(state.extra), "__call__", stop)
    with pytest.raises(Stop):
        state._step(trace, tf.constant(0))
    hidden = {key: ~seen[key].vectors.numpy().any(axis=2) for key in seen}
    if consistency == "same":
        np.testing.assert_array_equal(hidden["student"], hidden["teacher"])
    else:
        assert (hidden["student"] != hidden["teacher"]).any()
    if consistency == "fixed":
        assert hidden["teacher"].mean() < 0.1 < hidden["student"].mean()


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(0, 400, 40)


@pytest.fixture(scope="module")
def students(study: Study) -> dict[str, tuple]:
    settings = {
        "labels": {"reps": 0, "strength": 0.0, "labels": 1.0},
        "once": {"reps": 0},
        "repeated": {"reps": 7, "view": "none"},
        "recombined": {"reps": 7},
    }
    return {name: study.student(by) for name, by in settings.items()}


def test_the_first_batch_is_predicted_alike_whatever_the_patience(students: dict) -> None:
    first, second, third = (students[name][0] for name in ("once", "repeated", "recombined"))
    np.testing.assert_array_equal(first[:256], second[:256])
    np.testing.assert_array_equal(first[:256], third[:256])
    assert (first[256:] != third[256:]).any()


def test_patience_does_not_move_the_teacher(students: dict) -> None:
    def teacher(name: str) -> list[np.ndarray]:
        learner = students[name][1]
        dense = learner.model.teacher.trainable_variables
        return [learner.table.embedding.numpy()[:, 4:], *(v.numpy() for v in dense)]

    for name in ("once", "repeated", "recombined"):
        for ours, alone in zip(teacher(name), teacher("labels"), strict=True):
            np.testing.assert_array_equal(ours, alone)


def test_no_label_reaches_the_student_but_through_the_teacher(study: Study) -> None:
    found, learner = [], None
    for click in (study.late.click, ~study.late.click):
        # One batch: the student learns from the teacher as it was before these labels.
        first = study.late._replace(ids=study.late.ids[:256], click=click[:256])
        _, learner = study.student({"reps": 0}, reuse=learner, data=first)
        pair, table = learner.model, learner.table
        found.append(
            {
                "student": [table.wide[:, :1], *pair.student.trainable_variables],
                "teacher": [table.wide[:, 1:], *pair.teacher.trainable_variables],
            }
        )
        found[-1] = {key: [v.numpy().copy() for v in part] for key, part in found[-1].items()}
    assert np.abs(found[0]["student"][0]).max() > 0
    for ours, other in zip(found[0]["student"], found[1]["student"], strict=True):
        np.testing.assert_array_equal(ours, other)
    assert (found[0]["teacher"][0] != found[1]["teacher"][0]).any()


def test_patience_pays_on_fresh_views(study: Study, students: dict) -> None:
    found = {name: study.scores(*student) for name, student in students.items()}
    assert found["recombined"]["kl"] < 0.8 * found["repeated"]["kl"]
    assert found["recombined"]["kl"] < 0.8 * found["once"]["kl"]
    assert found["recombined"]["excess"] < 0.8 * found["labels"]["excess"]
    assert abs(found["recombined"]["bias"]) < 0.02


@pytest.mark.parametrize(
    "settings",
    [{"view": "crop"}, {"consistency": "often"}, {"reps": -1}, {"hidden": 1.0},
     {"temperature": 0.0}, {"buffer": 0}, {"teacher": "wide"}],
)  # fmt: skip
def test_bad_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        PatientDistillation(**settings)


def test_a_wrapper_put_later_is_refused() -> None:
    recipe = compose(tiny_recipe(), [MODULE])
    schema = Schema("s", (Feature("a"), Feature("b")), (Label("click"),))
    with pytest.raises(ModuleError, match="after the modules that change the model"):
        Learner(replace(recipe, model=Ensemble(recipe.model, 2)), schema)
