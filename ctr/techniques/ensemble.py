"""Ensembles of independently trained members, in one launch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Batch, Forward, Loss
from ctr.losses import LogLoss
from ctr.models import Ensemble
from ctr.models.ensemble import check_ensemble
from ctr.module import ModuleInfo
from ctr.recipe import Recipe


@dataclass(frozen=True)
class MembersLoss:
    """The sum over members of each one's own loss, so that each learns as if it were alone.

    Only a calibrator ties them together: what it adds to the ensemble's logit is added to each
    member's as a constant.

    Attributes:
        base: The loss of one member.
    """

    base: Loss = field(default_factory=LogLoss)

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B]."""
        members = forward.aux["members"]
        shift = tf.stop_gradient(forward.logits - forward.aux["mean"])
        losses = [
            self.base(forward._replace(logits=members[i] + shift), batch)
            for i in range(members.shape[0])
        ]
        return tf.add_n(losses)


@dataclass(frozen=True)
class EnsembleModule:
    """Trains several copies of the model and predicts the mean of their probabilities.

    Averaging takes out what differs between members by the chance of their initial values, so
    predictions differ less between retrainings. It costs as much as that many models.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 5.
    Deviations: the paper does not say what is averaged; here probabilities, or logits.
    Reduces to: the model alone with one member; without a calibrator, the mean of separately
        trained models.

    Attributes:
        members: Copies.
        mean: ``prob`` or ``logit``: what is averaged.
    """

    members: int = 3
    mean: str = "prob"
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="ensemble",
        paper="On the Factory Floor (arXiv:2209.05310), section 5",
        extends=frozenset({"model", "loss"}),
    )

    def __post_init__(self) -> None:
        check_ensemble(self.members, self.mean)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with an ensemble of its model."""
        model = Ensemble(recipe.model, self.members, self.mean)
        return replace(recipe, model=model, loss=MembersLoss(recipe.loss))
