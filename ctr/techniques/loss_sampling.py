"""Fewer of the examples that a model already predicts well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.api import Batch, Forward
from ctr.data.examples import Block
from ctr.encoding.graph import mix
from ctr.errors import ConfigError
from ctr.hashing import salt64
from ctr.losses import LogLoss
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.sampling import InBatches, check_rate, with_rule

#: Draws anew after whatever has sampled before, so that the two rates multiply.
_SALT = salt64("running model")


@dataclass(frozen=True)
class LossRule:
    """Keeps rows at ``rate`` whose log loss under a logged prediction is below ``threshold``."""

    column: str
    threshold: float
    rate: float

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of predictions."""
        return (self.column,)

    def rates(self, rows: Block) -> NDArray[np.float64]:
        """Returns float64[n]; rows without a prediction or a label are kept."""
        prob, label = rows.side[self.column].astype(np.float64), rows.labels[:, 0]
        # 0 * log(0) is avoided by looking at the probability of what happened only.
        happened = np.where(label == 1.0, prob, 1.0 - prob)
        well = (happened > np.exp(-self.threshold)) & (happened <= 1.0) & (label >= 0.0)
        return np.where(well, self.rate, 1.0)


@dataclass(frozen=True)
class RunningLossSampler(InBatches):
    """Keeps examples at ``rate`` that the model itself, before learning, predicts well.

    Attributes:
        threshold: Log loss in nats below which an example is predicted well.
        rate: Share of those that is kept.
    """

    columns: ClassVar[tuple[str, ...]] = ("example",)

    threshold: float
    rate: float

    def __call__(self, batch: Batch, logits: tf.Tensor) -> Batch:
        """Returns the batch with weights 0 for dropped and 1 / rate for kept examples."""
        batch = self.base(batch, logits)
        loss = LogLoss()(Forward(logits, {}), batch)
        known = tf.reduce_any(batch.labels >= 0.0, axis=1)
        bits = mix(tf.bitcast(batch.side["example"], tf.uint64), _SALT)
        # 24 bits are what a float32 holds exactly.
        draw = tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.float32)
        kept = draw * 2.0**-24 < self.rate
        factor = tf.where(kept, 1.0 / self.rate, 0.0)
        well = (loss < self.threshold) & known
        return batch._replace(weights=batch.weights * tf.where(well, factor, 1.0))


@dataclass(frozen=True)
class LossSamplingModule:
    """Trains on few of the examples that teach little because they are predicted well.

    With a column of logged predictions (a teacher's, see ``distillation``) rows are dropped
    before batches are formed, which saves their cost. Without one the running model decides: it
    has to predict every example, so this trains on less but saves nothing.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.3, loss-based sampling.
    Deviations: the paper uses logged predictions only.
    Reduces to: the base with ``rate = 1`` or ``threshold = 0``.

    Attributes:
        threshold: Log loss in nats below which an example is predicted well.
        rate: Share of those that is kept, in (0, 1].
        column: Side column of probabilities of the first label; empty uses the running model.
    """

    threshold: float = 0.05
    rate: float = 0.25
    column: str = ""
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="loss_sampling",
        paper="On the Factory Floor (arXiv:2209.05310), section 3.3",
        extends=frozenset({"sampler"}),
    )

    def __post_init__(self) -> None:
        check_rate(self.rate, "loss_sampling")
        if not self.threshold >= 0.0:
            raise ConfigError(
                f"loss_sampling: threshold must be at least 0 nats, received {self.threshold}."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with this rule added to its sampler."""
        if not self.column:
            sampler = RunningLossSampler(self.threshold, self.rate, base=recipe.sampler)
            return replace(recipe, sampler=sampler)
        rule = LossRule(self.column, self.threshold, self.rate)
        return replace(recipe, sampler=with_rule(recipe.sampler, rule))
