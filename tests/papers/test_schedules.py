"""Ramps follow the stream; a curriculum reaches every loss that has one."""

from __future__ import annotations

import pytest
import tensorflow as tf

from ctr.api import Batch
from ctr.errors import ConfigError, ModuleError
from ctr.losses import LogLoss
from ctr.module import compose
from ctr.recipe import Recipe, side_columns
from ctr.schedules import Ramp
from ctr.techniques.curriculum import CurriculumModule
from ctr.techniques.distillation import DistillationModule, DistilledLoss
from ctr.techniques.rank_loss import RankLoss, RankLossModule

HOUR_US = 3_600_000_000
MAY_1 = 1_714_521_600_000_000


def batch(seen: int = 0, times: list[int] | None = None) -> Batch:
    empty = tf.zeros([0])
    side = {} if times is None else {"event_time": tf.constant(times, tf.int64)}
    return Batch(empty, empty, empty, empty, side, tf.constant(seen, tf.int64))


@pytest.mark.parametrize(
    ("seen", "value"), [(0, 0.0), (100, 0.0), (150, 0.25), (300, 1.0), (10**12, 1.0)]
)
def test_a_ramp_follows_the_examples_seen(seen: int, value: float) -> None:
    assert float(Ramp(200, 100)(batch(seen))) == value


def test_without_length_it_is_a_step() -> None:
    assert float(Ramp()(batch(0))) == 1.0
    assert [float(Ramp(0, 10)(batch(n))) for n in (9, 10)] == [0.0, 1.0]


def test_a_ramp_follows_event_time_and_padding_does_not_turn_it_back() -> None:
    ramp = Ramp(10, 2, "hours", "2024-05-01")
    times = [MAY_1 + 6 * HOUR_US, MAY_1 + 7 * HOUR_US, 0]
    assert float(ramp(batch(times=times))) == pytest.approx(0.5)
    assert ramp.columns == ("event_time",)
    assert Ramp(10).columns == ()


@pytest.mark.parametrize(
    "values",
    [
        {"unit": "days"},
        {"length": -1.0},
        {"unit": "hours"},
        {"since": "2024-05-01"},
        {"unit": "hours", "since": "yesterday"},
    ],
)
def test_bad_ramps_are_refused(values: dict) -> None:
    with pytest.raises(ConfigError, match=r"ramp|ISO"):
        Ramp(**values)


def test_a_curriculum_schedules_every_loss() -> None:
    modules = [RankLossModule(), DistillationModule(), CurriculumModule(50, 10)]
    loss = compose(Recipe(), modules).loss
    assert isinstance(loss, DistilledLoss)
    assert isinstance(loss.base, RankLoss)
    assert loss.ramp == loss.base.ramp == Ramp(50, 10)
    assert loss.base.base == LogLoss()


def test_a_curriculum_in_event_time_asks_for_it() -> None:
    hours = CurriculumModule(24, 0, "hours", "2024-05-01", only=("RankLoss",))
    recipe = compose(Recipe(), [RankLossModule(), DistillationModule(), hours])
    assert recipe.loss.ramp == Ramp()
    assert side_columns(recipe) == ("event_time", "query", "teacher")


@pytest.mark.parametrize("only", [(), ("DistilledLoss",)])
def test_a_curriculum_without_its_loss_is_refused(only: tuple) -> None:
    modules = [RankLossModule()] if only else []
    with pytest.raises(ModuleError, match="Put the modules that add losses"):
        compose(Recipe(), [*modules, CurriculumModule(only=only)])
