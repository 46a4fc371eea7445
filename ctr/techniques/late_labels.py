"""Labels that come after their example was learned without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Batch
from ctr.errors import ConfigError, ModuleError
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.sampling import InBatches

METHODS = ("importance", "fake_negative", "plain")


@dataclass(frozen=True)
class LateLabelSampler(InBatches):
    """Weighs corrections, and with ``fake_negative`` all rows, by the running prediction.

    Attributes:
        method: One of ``METHODS``.
        max_weight: Largest weight factor.
    """

    columns: ClassVar[tuple[str, ...]] = ("correction",)

    method: str = "importance"
    max_weight: float = 20.0

    def __call__(self, batch: Batch, logits: tf.Tensor) -> Batch:
        """Returns the batch with weights multiplied by the method's factors."""
        batch = self.base(batch, logits)
        if self.method == "plain":
            return batch
        prob = tf.sigmoid(logits)
        again = batch.side["correction"] == 1
        if self.method == "importance":
            # A correction has one known label, the one that is 1 after all.
            corrected = tf.reduce_sum(tf.where(batch.labels == 1.0, prob, 0.0), axis=1)
            factor = tf.where(again, 1.0 / tf.maximum(1.0 - corrected, 1.0 / self.max_weight), 1.0)
            return batch._replace(weights=batch.weights * factor)
        if logits.shape[1] != 1:
            raise ConfigError(
                f"late_labels: fake_negative weighs rows by one label, but {logits.shape[1]} are "
                "learned. Learn one, or use method = 'importance'."
            )
        p, one = prob[:, 0], batch.labels[:, 0] == 1.0
        factor = tf.where(one, 1.0 + p, (1.0 - p) * (1.0 + p))
        return batch._replace(weights=batch.weights * factor)


@dataclass(frozen=True)
class LateLabels:
    """Learns from the corrections of a live stream without counting an example twice.

    A live stream tells an example when its wait is over and sends a label that comes later as a
    correction: the same row with that label 1. By then the example was learned as a negative.

    ``importance``: a positive of weight 1 / (1 - p). The gradient with respect to the logit is p
    for the negative and -1 for this, in sum p - 1, that of a true positive. Right for any wait.

    ``fake_negative``: importance weights from the biased stream, in which every example is a
    negative first, to the true one: 1 + p for positives and (1 - p)(1 + p) for negatives. Right
    for a wait of 0.

    ``plain``: corrections are ordinary positives; predictions tend to p / (1 + late share of p).

    Waiting for the whole window (``octr stream`` without ``--wait-s``) leaves nothing to correct.

    Paper: Ktena et al., "Addressing Delayed Feedback for Continuous Training with Neural Networks
    in CTR Prediction" (arXiv:1907.06558), sections 3.2 and 4.1: ``fake_negative`` is its FNW,
    ``plain`` its biased baseline.
    Deviations: factors are limited by ``max_weight``; ``importance`` is ours. Statistics of
    numeric features and of admission count a corrected example twice.
    Reduces to: the base on a stream without corrections (``importance``, ``plain``).

    Attributes:
        method: ``importance``, ``fake_negative`` or ``plain``.
        max_weight: Largest factor of a correction's weight.
    """

    method: str = "importance"
    max_weight: float = 20.0
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="late_labels",
        paper="Addressing Delayed Feedback (arXiv:1907.06558), sections 3.2 and 4.1",
        extends=frozenset({"sampler"}),
        columns=("correction",),
    )

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"late_labels: method must be one of {', '.join(METHODS)}, received "
                f"{self.method!r}."
            )
        if not self.max_weight >= 1.0:
            raise ConfigError(
                f"late_labels: max_weight must be at least 1, received {self.max_weight}."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with its sampler inside the weighing of late labels.

        Raises:
            ModuleError: the recipe weighs late labels already.
        """
        if isinstance(recipe.sampler, LateLabelSampler):
            raise ModuleError("late_labels: the recipe has it already. Name it once.")
        sampler = LateLabelSampler(self.method, self.max_weight, base=recipe.sampler)
        return replace(recipe, sampler=sampler)
