"""RankNet over the pairs of a query, mixed with the log loss on one logit."""

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
from ctr.techniques.pairs import pair_loss


@dataclass(frozen=True)
class RankLoss:
    """``(1 - a) base + a L_rank``, with ``a = alpha * ramp``.

    ``L_rank`` is the weighted mean over queries of the mean over their pairs of
    ``log(1 + exp(s_neg - s_pos))``; see :func:`ctr.techniques.pairs.pair_loss` for the weights.
    Every row carries the same share of it.

    Attributes:
        alpha: Share of the rank loss once the ramp is up.
        base: The loss that keeps predictions calibrated.
        ramp: How the share rises.
    """

    columns: ClassVar[tuple[str, ...]] = ("query",)
    whole_queries: ClassVar[bool] = True

    alpha: float = 0.02
    base: Loss = field(default_factory=LogLoss)
    ramp: Ramp = field(default_factory=Ramp)

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B]; the labels of several tasks add up."""
        alpha = self.alpha * self.ramp(batch)
        total = tf.zeros([])
        for task in range(batch.labels.shape[1]):
            labels = batch.labels[:, task]
            weights = tf.where(labels >= 0.0, batch.weights, 0.0)
            total += pair_loss(forward.logits[:, task], labels, weights, batch.side["query"])
        rank = total / tf.maximum(tf.reduce_sum(batch.weights), 1e-12)
        return (1.0 - alpha) * self.base(forward, batch) + alpha * rank


@dataclass(frozen=True)
class RankLossModule:
    """Trains the order of the examples of a query together with their probabilities.

    The pair term ignores whatever is common to a query and sees only what decides its order,
    which log loss spends little of its gradient on. It is not calibrated: watch calibration by
    bucket of predicted rate, not its total, and add bias constraints or a calibrator by bucket.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.1.1 (one logit for both losses);
        Burges et al. 2005, "Learning to rank using gradient descent".
    Deviations: normalised per query, weighted by the query's weight; the paper says neither how
        it normalises nor what alpha is, and does not print that pairs stay within a query.
    Reduces to: the base loss with ``alpha = 0``.

    Attributes:
        alpha: Share of the rank loss, in [0, 1). The mean over pairs starts at 0.69 nats, the log
            loss of rare clicks far below, so 0.005 to 0.05 already counts.
        ramp_examples: Examples over which the share rises from 0.
    """

    alpha: float = 0.02
    ramp_examples: int = 20_000
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="rank_loss",
        paper="On the Factory Floor (arXiv:2209.05310), section 4.1.1",
        extends=frozenset({"loss"}),
        columns=("query",),
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha < 1.0:
            raise ConfigError(
                f"rank_loss: alpha must be at least 0 and below 1, received {self.alpha}. Without "
                "any log loss nothing fixes the level of the predictions; 0.005 to 0.05 is usual."
            )
        Ramp(self.ramp_examples)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with the rank loss mixed into its loss."""
        loss = RankLoss(self.alpha, recipe.loss, Ramp(float(self.ramp_examples)))
        return replace(recipe, loss=loss)
