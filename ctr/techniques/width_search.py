"""Search for layer widths and bottleneck ranks in the stream itself, at a target cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Model
from ctr.errors import ModuleError
from ctr.models.deep import Deep
from ctr.module import ModuleInfo
from ctr.optimizers import Optimizers
from ctr.recipe import Recipe
from ctr.search.super_network import SuperNetwork, SuperNetworkModel
from ctr.table import Table
from ctr.update import GradientUpdate, Trace, Update, UpdateState


@dataclass(frozen=True)
class RewardedUpdate:
    """An update of the weights, after which the super-network's controller gets its reward.

    Attributes:
        base: What moves the weights.
    """

    base: Update = field(default_factory=GradientUpdate)

    def build(self, model: Model, table: Table, optimizers: Optimizers) -> RewardedState:
        """Creates the slots of the base.

        Raises:
            ModuleError: the model has no controller.
        """
        if not isinstance(model, SuperNetworkModel):
            raise ModuleError(
                f"width_search: another module has wrapped the model ({type(model).__name__}) "
                "since. Search on the plain deep model, then use the result with that module."
            )
        return RewardedState(self.base.build(model, table, optimizers), model)


class RewardedState(tf.Module):
    """The built form of :class:`RewardedUpdate`."""

    def __init__(self, base: UpdateState, model: SuperNetworkModel) -> None:
        super().__init__(name="rewarded_update")
        self.base, self._model = base, model

    def __call__(self, trace: Trace) -> None:
        """Applies the step; rewards are those of predictions made before it."""
        accuracy, weight = accuracies(trace)
        chosen = trace.forward.aux["chosen"]
        self.base(trace)
        # A batch of padding teaches nothing, and must not count as a reward of 0.
        self._model.learn(chosen, accuracy, trace.batch.seen, weight > 0.0)


def accuracies(trace: Trace) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns minus the mean log loss of every compared candidate, and the batch's weight.

    All are judged with the correction that the calibrator gave the first one.

    Returns:
        float32[S] in nats, and float32[].
    """
    batch, samples = trace.batch, trace.forward.aux["samples"]
    correction = tf.stop_gradient(trace.forward.logits) - samples[0]
    known = batch.labels >= 0.0
    labels = tf.where(known, batch.labels, 0.0)
    logits = samples + correction
    labels = tf.broadcast_to(labels, tf.shape(logits))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
    weights = tf.where(known, batch.weights[:, None], 0.0)
    total = tf.reduce_sum(weights)
    # Padding may hold anything, and infinity times 0 is no number.
    losses = tf.where(weights > 0.0, losses, 0.0)
    return -tf.math.divide_no_nan(tf.reduce_sum(losses * weights, axis=[1, 2]), total), total


@dataclass(frozen=True)
class WidthSearch:
    """Learns which widths and ranks of the hidden layers are worth their cost, in one pass.

    All candidates share one network. For every batch a controller samples some of them, which
    predict it before any learns; their rewards, ``-log loss + gamma * |cost / target - 1|``, move
    the controller, and the first one learns. Cost is that of all matrices, in multiply-adds. The
    predictions of a run are those of sampled candidates: the result is the *choice* (``octr
    search``), to be trained stand-alone.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.2; Bender et al. 2020, "Can weight
    sharing outperform random architecture search?" (TuNAS, arXiv:2008.06120).
    Deviations: the reward needs no validation data, because a batch is unseen before it is
        learned. Several candidates are judged on one batch and their mean is the baseline
        (``samples = 1`` gives the paper's moving average). The result is the likeliest candidate
        *within 2 %* of the target, since short streams leave the controller undecided. The
        controller's rate is constant. Embedding widths are not searched.
    Reduces to: the plain model, when there is one width and one rank.

    Attributes:
        target: Cost aimed at, as a share of the base's.
        widths: Units of each layer that can be chosen, as shares of the base's.
        ranks: Ranks that can be chosen, likewise; 0 for a whole layer.
        gamma: Reward of missing the target by 100 %, in nats, below 0.
        samples: Candidates compared on each batch.
        warmup: Examples over which the controller waits for the weights.
        rate: The controller's step size.
        overhead: Multiply-adds per example that the rest of a step is worth; see
            ``docs/techniques.md``.
    """

    target: float = 0.9
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25)
    ranks: tuple[float, ...] = (0.0, 0.125, 0.25)
    gamma: float = -0.02
    samples: int = 4
    warmup: int = 20_000
    rate: float = 0.02
    overhead: float = 0.0
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="width_search",
        paper="On the Factory Floor (arXiv:2209.05310), section 3.2",
        extends=frozenset({"model", "update"}),
        needs=(SuperNetwork,),
    )

    def __post_init__(self) -> None:
        self.network(Deep())

    def network(self, base: Deep) -> SuperNetwork:
        """Returns the super-network over a model."""
        return SuperNetwork(
            base, tuple(self.widths), tuple(self.ranks), self.target, self.gamma, self.samples,
            self.warmup, self.rate, self.overhead,
        )  # fmt: skip

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with a super-network for its model, and a rewarded controller.

        Raises:
            ModuleError: the model is no deep one, or another module has wrapped it.
        """
        if not isinstance(recipe.model, Deep):
            raise ModuleError(
                f"width_search chooses hidden layers, but {type(recipe.model).__name__} has none "
                "of its own. Use it with wide_dcn, mlp or dlrm, before modules that wrap a model."
            )
        model, update = self.network(recipe.model), RewardedUpdate(recipe.update)
        return replace(recipe, model=model, update=update)
