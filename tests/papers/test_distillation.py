"""Distillation: from a column, from a teacher beside the student, and what must not leak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from ctr.api import Batch, Forward
from ctr.calibration import NoCalibration
from ctr.data import manifest
from ctr.data.teacher import attach_predictions
from ctr.errors import ConfigError, ModuleError, SchemaError, StreamError
from ctr.learner import Learner
from ctr.losses import LogLoss
from ctr.models import Linear, Mlp
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.distillation import DistillationModule, DistilledLoss
from ctr.techniques.online_distillation import OnlineDistillationModule, WithTeacher
from ctr.training.run import RunConfig
from ctr.training.trainer import Trainer

SCHEMA = Schema("ads", (Feature("user"), Feature("item")), (Label("click"),), side=("teacher",))
BASE = Recipe(
    model=Linear(), table_rows=2048, batch_size=32, calibrator=NoCalibration()
)  # fmt: skip
TINY = ("dim=4", "hidden=[8]", "cross_layers=0")


@dataclass
class World:
    columns: dict
    truth: np.ndarray


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(1)
    n = 6000
    user, item = rng.integers(0, 300, n), rng.integers(0, 60, n)
    logit = -1.0 + rng.normal(0, 1, 300)[user] + rng.normal(0, 1, 60)[item]
    p = 1 / (1 + np.exp(-logit))
    click = (rng.random(n) < p).astype(np.int8)
    columns = {"user": [f"u{i}" for i in user], "item": [f"i{i}" for i in item], "click": click}
    return World(columns, p)


def taught(write, world: World, teacher: np.ndarray, name: str):
    return write(SCHEMA, name, **world.columns, teacher=teacher.astype(np.float32))


def batch_of(teacher: list[float], labels: list[float]) -> Batch:
    n = len(teacher)
    side = {"teacher": tf.constant(teacher, tf.float32)}
    y = tf.constant(labels)[:, None]
    return Batch(
        tf.zeros([n, 1]), tf.zeros([n, 0]), y, tf.ones([n]), side, tf.constant(0, tf.int64)
    )


def test_no_weight_is_the_base_and_labels_as_teacher_scale_it() -> None:
    labels = [1.0, 0.0, 1.0, 0.0]
    forward = Forward(tf.constant([[0.3], [-2.0], [4.0], [0.0]]), {})
    batch = batch_of(labels, labels)
    base = LogLoss()(forward, batch).numpy()
    np.testing.assert_array_equal(DistilledLoss("teacher", 0.0)(forward, batch), base)
    np.testing.assert_allclose(DistilledLoss("teacher", 0.5)(forward, batch), 1.5 * base, rtol=1e-6)


def test_the_gradient_is_the_distance_to_the_teacher_and_a_missing_one_teaches_nothing() -> None:
    logits = tf.constant([[0.3], [-2.0], [1.0], [0.5]])
    batch = batch_of([0.9, 0.2, float("nan"), 7.0], [-1.0] * 4)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = DistilledLoss("teacher", 2.0)(Forward(logits, {}), batch)
    slope = tape.gradient(loss, logits).numpy()[:, 0]
    prob = 1 / (1 + np.exp(-np.array([0.3, -2.0])))
    np.testing.assert_allclose(slope, [*(2 * (prob - [0.9, 0.2])), 0.0, 0.0], rtol=1e-5)


def log_loss(prob: np.ndarray, click: np.ndarray) -> float:
    return float(-np.log(np.where(click == 1, prob, 1 - prob)).mean())


def test_a_perfect_teacher_speeds_learning_up(write, one_pass, world: World) -> None:
    folder = taught(write, world, world.truth, "truth")
    alone = one_pass(folder, BASE).prob
    student = one_pass(folder, compose(BASE, [DistillationModule(alpha=1.0)])).prob
    click = world.columns["click"]
    assert log_loss(student, click) < log_loss(alone, click) - 0.005
    error, alone_error = (np.abs(p - world.truth)[3000:].mean() for p in (student, alone))
    assert error < 0.85 * alone_error


def test_the_bias_of_a_teacher_passes_on_by_its_share(write, one_pass, world: World) -> None:
    biased = np.full_like(world.truth, 1.4 * world.truth.mean())
    folder = taught(write, world, biased, "biased")
    student = one_pass(folder, compose(BASE, [DistillationModule(alpha=0.5)])).prob[1000:]
    clicks = world.columns["click"][1000:].mean()
    expected = (clicks + 0.5 * biased[0]) / 1.5
    assert student.mean() == pytest.approx(expected, rel=0.03)
    assert abs(student.mean() / clicks - 1) > 0.08


def test_predictions_from_after_learning_give_gains_that_are_not_real(
    write, one_pass, world: World
) -> None:
    """Negative control: a teacher who has seen the future beats one who has not."""
    click, user = world.columns["click"], np.array(world.columns["user"])
    late, early = np.empty(len(click)), np.empty(len(click))
    sums: dict[str, list[float]] = {}
    for row, (who, label) in enumerate(zip(user, click, strict=True)):
        seen = sums.setdefault(who, [1.0, 0.3])
        early[row] = seen[1] / seen[0]
        seen[0] += 1
        seen[1] += label
    late[:] = [sums[who][1] / sums[who][0] for who in user]
    recipe = compose(BASE, [DistillationModule(alpha=2.0)])
    honest = one_pass(taught(write, world, early, "early"), recipe).prob
    leaky = one_pass(taught(write, world, late, "late"), recipe).prob
    assert log_loss(leaky, click) < log_loss(honest, click) - 0.01


@pytest.mark.parametrize(
    "make",
    [
        lambda: DistillationModule(alpha=-1.0),
        lambda: OnlineDistillationModule(alpha=-1.0),
        lambda: OnlineDistillationModule(members=0),
        lambda: OnlineDistillationModule("wide_dnc"),
        lambda: OnlineDistillationModule(set=("hiden=[8]",)),
    ],
)
def test_bad_settings_are_refused(make) -> None:
    with pytest.raises(ConfigError):
        make()


def test_a_missing_column_is_refused_at_build() -> None:
    recipe = compose(BASE, [DistillationModule("pilot")])
    with pytest.raises(SchemaError, match="no side column 'pilot'"):
        Learner(recipe, SCHEMA)


def online(alpha: float, seed: int = 0, members: int = 1) -> Recipe:
    student = replace(BASE, model=Mlp(dim=4, hidden=(8,)))
    module = OnlineDistillationModule("mlp", ("dim=4", "hidden=[16]"), members, alpha, 0)
    recipe = compose(student, [module])
    return replace(recipe, model=_Reseeded(recipe.model.base, recipe.model.teacher, seed))


@dataclass(frozen=True)
class _Reseeded(WithTeacher):
    """Draws the teacher's dense variables from another seed, the student's from the same."""

    by: int = 0

    def build(self, layout, n_tasks, seed):
        model = super().build(layout, n_tasks, seed)
        if self.by:
            model.teacher = self.teacher.build(layout, n_tasks, seed + self.by)
            model.wide.parts[1] = model.teacher.wide
        return model


@dataclass(frozen=True)
class TeacherLogits:
    """A probe that keeps what the teacher predicted, in order."""

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", tf.Variable(tf.zeros([self.size])))

    def observe(self, forward: Forward, batch: Batch) -> None:
        rows = tf.cast(batch.seen, tf.int32) + tf.range(batch.weights.shape[0])
        self.seen.scatter_nd_update(rows[:, None], forward.aux["teacher"][:, 0])

    def report(self) -> Mapping[str, object]:
        return {}


def test_without_weight_the_teacher_does_not_touch_the_student(
    write, one_pass, world: World
) -> None:
    folder = taught(write, world, world.truth, "d")
    first, second = (one_pass(folder, online(0.0, seed)) for seed in (0, 11))
    np.testing.assert_array_equal(first.prob, second.prob)
    taught_by = [one_pass(folder, online(1.0, seed)).prob for seed in (0, 11)]
    assert not np.array_equal(*taught_by)


def test_the_student_sees_what_the_teacher_predicted_before_learning(
    write, one_pass, world: World
) -> None:
    """Other labels from row 4,000 on change no prediction of either of them up to there."""
    flipped = dict(world.columns, click=world.columns["click"].copy())
    cut = 4000 // 32 * 32
    flipped["click"][cut:] ^= 1
    results = []
    for name, columns in (("a", world.columns), ("b", flipped)):
        folder = write(SCHEMA, name, **columns, teacher=world.truth.astype(np.float32))
        probe = TeacherLogits(8192)
        run = one_pass(folder, replace(online(1.0), probes=(probe,)))
        results.append((run.prob, probe.seen.numpy()[: len(run.prob)]))
    # The batch that begins at the cut is predicted before its labels are known.
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a[: cut + 32], b[: cut + 32])
        assert not np.array_equal(a[cut + 32 :], b[cut + 32 :])


def test_a_better_teacher_helps_a_weak_student(write, one_pass, world: World) -> None:
    folder = taught(write, world, world.truth, "d")
    click = world.columns["click"]
    losses = {a: log_loss(one_pass(folder, online(a)).prob, click) for a in (0.0, 1.0)}
    assert losses[1.0] < losses[0.0] + 0.002


def test_wrapping_the_model_afterwards_is_refused() -> None:
    forward = Forward(tf.zeros([2, 1]), {})
    with pytest.raises(ModuleError, match="Put online_distillation after"):
        online(1.0).loss(forward, batch_of([0.5, 0.5], [1.0, 0.0]))


def test_predictions_of_a_run_become_a_side_column(write, world: World, tmp_path) -> None:
    columns = {k: v[:700] for k, v in world.columns.items()}
    bare = replace(SCHEMA, side=())
    folder = write(bare, "data", **columns)
    config = RunConfig("lr", replace(BASE, table_rows=512))
    Trainer(folder, tmp_path / "run", config, save_predictions=True).train()
    # The run has seen less than the data hold by now: the first 500 of them, say.
    logged = pq.read_table(tmp_path / "run" / "predictions.parquet")
    pq.write_table(logged.slice(0, 500), tmp_path / "run" / "predictions.parquet")
    assert attach_predictions(folder, tmp_path / "run", tmp_path / "out") == 500
    schema, shards = manifest.load(tmp_path / "out")
    assert schema.side == ("teacher",)
    parts = [pq.read_table(tmp_path / "out" / s.file).column("teacher") for s in shards]
    got = np.concatenate([part.to_numpy() for part in parts])
    np.testing.assert_array_equal(got[:500], logged.column("prob").to_numpy()[:500])
    assert np.isnan(got[500:]).all()
    student = RunConfig("lr", compose(config.recipe, [DistillationModule()]))
    Trainer(tmp_path / "out", tmp_path / "student", student).train()


def test_teachers_that_do_not_fit_are_refused(write, world: World, tmp_path) -> None:
    columns = {k: v[:200] for k, v in world.columns.items()}
    bare = replace(SCHEMA, side=())
    folder = write(bare, "data", **columns)
    other = replace(bare, features=(Feature("user"),))
    elsewhere = write(other, "other", **columns)
    config = RunConfig("lr", replace(BASE, table_rows=512))
    run = tmp_path / "run"
    Trainer(folder, run, config).train()
    with pytest.raises(StreamError, match="--save-predictions"):
        attach_predictions(folder, run, tmp_path / "out")
    with pytest.raises(SchemaError, match="was trained with schema"):
        attach_predictions(elsewhere, run, tmp_path / "out")
    with pytest.raises(SchemaError, match="has a column 'click' already"):
        attach_predictions(folder, run, tmp_path / "out", "click")
    with pytest.raises(ConfigError, match="exists already"):
        attach_predictions(folder, run, elsewhere)
    late = dict(columns, event_time=np.arange(200) * 1_000_000 + 7)
    shifted = write(bare, "shifted", **late)
    predicted = tmp_path / "predicted"
    Trainer(folder, predicted, config, save_predictions=True).train()
    with pytest.raises(StreamError, match="predicted none of the examples"):
        attach_predictions(shifted, predicted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
