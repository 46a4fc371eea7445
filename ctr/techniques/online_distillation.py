"""A larger teacher that learns the same stream in the same graph, one batch at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Batch, Forward, Loss, ModelConfig
from ctr.config import override
from ctr.errors import ModuleError
from ctr.losses import LogLoss
from ctr.models import Ensemble, WithTeacher
from ctr.module import ModuleInfo
from ctr.recipe import Recipe, named_recipe
from ctr.schedules import Ramp
from ctr.techniques.distillation import check_alpha


@dataclass(frozen=True)
class TaughtLoss:
    """The student's and the teacher's own loss, and the student's distance to the teacher.

    Attributes:
        alpha: Weight of that distance once the ramp is up.
        base: The loss on labels, of each of the two.
        ramp: How the weight rises.
    """

    alpha: float = 0.5
    base: Loss = field(default_factory=LogLoss)
    ramp: Ramp = field(default_factory=Ramp)

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B].

        Raises:
            ModuleError: the model has no teacher.
        """
        if "teacher" not in forward.aux:
            raise ModuleError(
                "online_distillation: another module has wrapped the model since. Put "
                "online_distillation after the modules that change the model."
            )
        teacher = forward.aux["teacher"]
        # A constant: the teacher learns from labels only, and must not come to meet the student.
        target = tf.stop_gradient(tf.sigmoid(teacher))
        soft = tf.nn.sigmoid_cross_entropy_with_logits(target, forward.logits)
        own = self.base(forward, batch) + self.base(forward._replace(logits=teacher), batch)
        return own + self.alpha * self.ramp(batch) * tf.reduce_sum(soft, axis=1)


@dataclass(frozen=True)
class OnlineDistillationModule:
    """Trains a wider, deeper or ensemble teacher beside the model, which learns from it.

    The teacher's prediction comes from the forward pass before the batch is learned, so it is
    progressive by construction. Only the student is served. While training, the teacher costs
    what it costs: where several students share a teacher, log its predictions once instead and
    use ``distillation``.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.1.2.
    Deviations: teacher and student learn in one pass; in the paper the teacher has run before.
    Reduces to: the student alone with ``alpha = 0``.

    Attributes:
        teacher: Name of the teacher's recipe.
        set: Overrides of the teacher's model, e.g. ``["dim=32", "hidden=[512, 256]"]``.
        members: Teachers that are averaged.
        alpha: Weight of the teacher. 0.5 to 1 is usual.
        ramp_examples: Examples over which the weight rises from 0; a young teacher knows nothing.
    """

    teacher: str = "wide_dcn"
    set: tuple[str, ...] = ("dim=32", "hidden=[512, 256, 128]")
    members: int = 1
    alpha: float = 0.5
    ramp_examples: int = 20_000
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="online_distillation",
        paper="On the Factory Floor (arXiv:2209.05310), section 4.1.2",
        extends=frozenset({"model", "loss"}),
    )

    def __post_init__(self) -> None:
        check_alpha(self.alpha, "online_distillation")
        Ramp(self.ramp_examples)
        self._teacher()

    def _teacher(self) -> ModelConfig:
        model = override(named_recipe(self.teacher).model, self.set)
        return model if self.members == 1 else Ensemble(model, self.members)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with a teacher beside its model."""
        loss = TaughtLoss(self.alpha, recipe.loss, Ramp(float(self.ramp_examples)))
        return replace(recipe, model=WithTeacher(recipe.model, self._teacher()), loss=loss)
