"""Distillation by the coefficients of a teacher's layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import tensorflow as tf

from ctr.api import Batch, Forward, Loss
from ctr.config import override
from ctr.errors import ConfigError, ModuleError
from ctr.losses import LogLoss
from ctr.models.deep import Deep
from ctr.module import ModuleInfo
from ctr.recipe import Recipe, named_recipe
from research_modules.bregman_distillation.student import (
    LATER,
    LAYERS,
    BregmanPair,
    RefittingUpdate,
)


@dataclass(frozen=True)
class BregmanLoss:
    """Labels for the teacher; labels, teacher's probability and teacher's layer for the student.

    Attributes:
        strength: Nats per share of the teacher's layer that the student does not explain.
        soft: Weight of the cross entropy with the teacher's probability.
        labels: Weight of the student's loss on labels.
        base: The loss on labels.
    """

    strength: float
    soft: float
    labels: float
    base: Loss = field(default_factory=LogLoss)

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B].

        Raises:
            ModuleError: another module has taken the teacher away.
        """
        if "divergence" not in forward.aux:
            raise ModuleError(LATER)
        teacher = forward.aux["teacher"]
        target = tf.stop_gradient(tf.sigmoid(teacher))
        soft = tf.nn.sigmoid_cross_entropy_with_logits(target, forward.logits)
        taught = self.base(forward._replace(logits=teacher), batch)
        own = self.labels * self.base(forward, batch) + self.soft * tf.reduce_sum(soft, axis=1)
        return taught + own + self.strength * forward.aux["divergence"]


@dataclass(frozen=True)
class BregmanDistillation:
    """A small student predicts the Bregman PCA coefficients of a larger teacher's last layer.

    The teacher learns the same stream beside the student. Its last hidden layer is compressed to
    ``k`` coefficients in the geometry of its activation; the student predicts those, and a fixed
    layer and a copy of the teacher's head turn them into logits. Layer and head are fitted again
    every ``every`` examples, and the student's coefficients move into the new coordinates.
    Only the student, layer and head are served.

    Paper: Amid, Anil, Fifty, Warmuth 2022, "Layerwise Bregman representation learning of neural
    networks with applications to knowledge distillation" (arXiv:2209.07080), sections 3 and 4.
    Deviations: teacher and student learn in one pass, so layer and head are refitted; the student
    keeps a wide part and a loss on labels, which ``labels = 0`` switches off; the divergence
    counts in units of what the mean alone leaves.
    Reduces to: for ``strength = 0``, distillation of the teacher's probability through an
    imported layer; the PCA itself to ordinary PCA for the identity.

    Attributes:
        k: Coefficients.
        teacher: Name of the teacher's recipe, one with hidden layers.
        set: Overrides of the teacher's model. Its activation must be strictly monotone.
        strength: Weight of the layer's divergence.
        soft: Weight of the teacher's probability.
        labels: Weight of labels in the student's loss.
        every: Examples between two fits.
        sample: Outputs of the layer a fit goes by.
        sweeps: Most alternations of a fit.
    """

    k: int = 8
    teacher: str = "wide_dcn"
    set: tuple[str, ...] = ("dim=32", "hidden=[256, 64]", 'activation="leaky_relu"')
    strength: float = 0.1
    soft: float = 0.5
    labels: float = 1.0
    every: int = 20_000
    sample: int = 2048
    sweeps: int = 10
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="bregman_distillation",
        paper="Layerwise Bregman representation learning (arXiv:2209.07080), sections 3 and 4",
        extends=frozenset({"model", "loss", "update"}),
    )

    def __post_init__(self) -> None:
        if min(self.strength, self.soft, self.labels) < 0:
            raise ConfigError(
                "bregman_distillation: strength, soft and labels must be at least 0, received "
                f"{self.strength}, {self.soft} and {self.labels}."
            )
        if min(self.every, self.sweeps) < 1 or self.sample < 2:
            raise ConfigError(
                "bregman_distillation: every and sweeps must be at least 1 and sample at least 2, "
                f"received {self.every}, {self.sweeps} and {self.sample}."
            )
        teacher = self._teacher()
        if not 1 <= self.k <= teacher.hidden[-1]:
            raise ConfigError(
                f"bregman_distillation: k must be 1 to {teacher.hidden[-1]}, the units of the "
                f"teacher's last layer; received {self.k}."
            )

    def _teacher(self) -> Any:
        model = override(named_recipe(self.teacher).model, self.set)
        if not isinstance(model, Deep) or not model.hidden:
            raise ConfigError(
                f"bregman_distillation: the teacher {self.teacher!r} has no hidden layer to "
                "distil. Use wide_dcn, mlp or dlrm."
            )
        if model.activation not in LAYERS:
            raise ConfigError(
                f"bregman_distillation: the teacher's activation must be {' or '.join(LAYERS)}, "
                f"strictly monotone with a known potential; received {model.activation!r}. Add "
                "'activation=\"leaky_relu\"' to `set`."
            )
        return model

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with its model as the student of a larger one.

        Raises:
            ModuleError: the model has no hidden layer of its own.
        """
        student: Any = recipe.model
        if not isinstance(student, Deep) or not student.hidden:
            raise ModuleError(
                "module 'bregman_distillation' puts coefficients on the last hidden layer of "
                f"wide_dcn, mlp or dlrm, but the model is {type(student).__name__}. Put it before "
                "modules that wrap the model."
            )
        return replace(
            recipe,
            model=BregmanPair(student, self._teacher(), self.k),
            loss=BregmanLoss(self.strength, self.soft, self.labels, recipe.loss),
            update=RefittingUpdate(recipe.update, self.every, self.sample, self.sweeps),
        )
