"""Distillation from predictions that a teacher has logged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Batch, Forward, Loss
from ctr.errors import ConfigError
from ctr.losses import LogLoss
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.schedules import Ramp


@dataclass(frozen=True)
class DistilledLoss:
    """``base + a * cross entropy with the teacher's probability``, with ``a = alpha * ramp``.

    Attributes:
        column: Side column of teacher probabilities, for the first learned label. An example
            without one (null, or nothing between 0 and 1) is learned from its label alone.
        alpha: Weight of the teacher once the ramp is up.
        base: The loss on labels.
        ramp: How the weight rises.
    """

    column: str
    alpha: float = 0.5
    base: Loss = field(default_factory=LogLoss)
    ramp: Ramp = field(default_factory=Ramp)

    @property
    def columns(self) -> tuple[str, ...]:
        """The teacher's column."""
        return (self.column,)

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B]."""
        teacher = batch.side[self.column]
        known = (teacher >= 0.0) & (teacher <= 1.0)
        soft = tf.nn.sigmoid_cross_entropy_with_logits(
            tf.where(known, teacher, 0.0), forward.logits[:, 0]
        )
        alpha = self.alpha * self.ramp(batch)
        return self.base(forward, batch) + alpha * tf.where(known, soft, 0.0)


@dataclass(frozen=True)
class DistillationModule:
    """Learns from a teacher's logged predictions beside the labels.

    A teacher's probability replaces the noise of a click that did or did not come by the
    teacher's much smaller error. It must be the *progressive* prediction, made before the teacher
    learned from that stretch of the stream: anything later has seen the labels. Write the column
    with :func:`ctr.data.teacher.attach_predictions`, which takes no other predictions.

    Of a teacher that is biased on a slice, the share ``alpha / (1 + alpha)`` of the bias passes
    to the student.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.1.2.
    Deviations: the form of the loss and alpha are ours; the paper gives neither.
    Reduces to: the base loss with ``alpha = 0``; with the labels as teacher, the base loss times
        ``1 + alpha``.

    Attributes:
        column: Side column with the teacher's probability of the first learned label.
        alpha: Weight of the teacher's loss. 0.5 to 1 is usual.
        ramp_examples: Examples over which the weight rises from 0.
    """

    column: str = "teacher"
    alpha: float = 0.5
    ramp_examples: int = 0
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="distillation",
        paper="On the Factory Floor (arXiv:2209.05310), section 4.1.2",
        extends=frozenset({"loss"}),
    )

    def __post_init__(self) -> None:
        check_alpha(self.alpha, "distillation")
        Ramp(self.ramp_examples)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with the teacher's loss added."""
        ramp = Ramp(float(self.ramp_examples))
        return replace(recipe, loss=DistilledLoss(self.column, self.alpha, recipe.loss, ramp))


def check_alpha(alpha: float, what: str) -> None:
    """Raises ConfigError if the weight of a teacher is negative."""
    if not alpha >= 0.0:
        raise ConfigError(f"{what}: alpha must be at least 0, received {alpha}. 0.5 to 1 is usual.")
