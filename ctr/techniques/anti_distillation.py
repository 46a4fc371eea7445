"""Pushes the members of an ensemble apart, so that their mean has less chance left in it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Batch, Forward, Loss
from ctr.errors import ConfigError, ModuleError
from ctr.losses import LogLoss
from ctr.models import Ensemble
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.schedules import Ramp

#: Variance of an output below which a member counts as constant, not as correlated.
_FLOOR = 1e-4
#: What can be decorrelated.
OUTPUTS = ("error", "logit")


@dataclass(frozen=True)
class Decorrelated:
    """A loss plus a penalty on members whose outputs rise and fall together over a batch.

    Attributes:
        base: The loss that is added to.
        strength: Weight of the penalty.
        ramp: How the penalty sets in.
        of: What is decorrelated, ``error`` or ``logit``.
    """

    base: Loss = field(default_factory=LogLoss)
    strength: float = 0.01
    ramp: Ramp = field(default_factory=Ramp)
    of: str = "error"

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B]; the penalty belongs to the batch and is added to each example."""
        members, known = forward.aux["members"], tf.cast(batch.labels >= 0.0, tf.float32)
        outputs = tf.sigmoid(members) - batch.labels if self.of == "error" else members
        penalty = correlation_penalty(outputs, batch.weights[:, None] * known)
        return self.base(forward, batch) + self.strength * self.ramp(batch) * penalty


def correlation_penalty(outputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns the summed squared correlation of all pairs of members, float32[].

    Args:
        outputs: float32[k, B, T], one output of each member.
        weights: float32[B, T]; what has weight 0 does not count.
    """
    share = weights / tf.maximum(tf.reduce_sum(weights, axis=0), 1e-6)
    centred = outputs - tf.reduce_sum(share * outputs, axis=1, keepdims=True)
    variance = tf.reduce_sum(share * centred * centred, axis=1) + _FLOOR
    pairs = []
    for i, j in itertools.combinations(range(outputs.shape[0]), 2):
        covariance = tf.reduce_sum(share * centred[i] * centred[j], axis=0)
        pairs.append(tf.reduce_sum(covariance**2 / (variance[i] * variance[j])))
    return tf.add_n(pairs)


@dataclass(frozen=True)
class AntiDistillation:
    """Adds ``strength * sum over pairs of corr(s_m, s_n)**2`` to the loss of an ensemble.

    Members that err in different ways cancel more of each other's chance; the price is that each
    one is kept from part of the signal. Use after ``ensemble``.

    Paper: Shamir and Coviello 2020, "Anti-distillation: improving reproducibility of deep
    networks" (arXiv:2010.09923); "On the Factory Floor" (arXiv:2209.05310), section 5.
    Deviations: the papers give no formula; the squared correlation of logits over a batch is ours.
    Reduces to: the plain ensemble with ``strength = 0``.

    Attributes:
        strength: Weight of the penalty, in nats per example and pair of fully correlated members.
        ramp_examples: Examples over which the penalty grows to its full weight.
    """

    strength: float = 0.01
    ramp_examples: int = 20_000
    of: str = "error"
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="anti_distillation",
        paper="Anti-distillation (arXiv:2010.09923); On the Factory Floor (arXiv:2209.05310), "
        "section 5",
        extends=frozenset({"loss"}),
        needs=(Ensemble,),
    )

    def __post_init__(self) -> None:
        if self.strength < 0 or self.ramp_examples < 0:
            raise ConfigError(
                "anti_distillation: strength and ramp_examples must be at least 0, received "
                f"{self.strength} and {self.ramp_examples}."
            )
        if self.of not in OUTPUTS:
            raise ConfigError(
                f"anti_distillation: of must be error or logit, received {self.of!r}."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with the penalty in its loss."""
        if not isinstance(recipe.model, Ensemble) or recipe.model.members < 2:
            raise ModuleError(
                "module 'anti_distillation' pushes the members of an ensemble apart, but the "
                'model has none to push. Put {use = "ensemble", members = 3} before it.'
            )
        loss = Decorrelated(recipe.loss, self.strength, Ramp(float(self.ramp_examples)), self.of)
        return replace(recipe, loss=loss)
