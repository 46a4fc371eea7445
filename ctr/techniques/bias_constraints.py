"""Bias constraints: the mean error of every slice is held at 0 while the model is learned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import tensorflow as tf

from ctr.api import Batch, Forward, Loss
from ctr.encoding import Layout
from ctr.errors import ConfigError, ModuleError, nearest
from ctr.losses import LogLoss
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.schedules import Ramp
from ctr.slice_rows import TIMES, SliceRows

#: Edges of the buckets of predicted rate lie between these log-odds.
LOWEST, HIGHEST = -6.0, 1.0


@dataclass(frozen=True)
class ConstrainedLoss:
    """``base + weight * sum_k lambda_k * (mean over slice k of label - prediction)``.

    The model descends on this, the multipliers ascend: ``lambda += rate * (b - strictness *
    lambda)`` with ``b`` a batch's mean of label minus prediction in the slice. A slice without
    examples keeps its multiplier.

    Attributes:
        slices: Slicings, see :class:`ctr.slice_rows.SliceRows`.
        ctr_buckets: Further slices by predicted rate; 0 or 1 for none.
        column: Only examples whose value in this side column is above 0 count; "" for all.
        weight: Weight of a slice beside the mean loss.
        alpha: ``lambda``'s pull to 0; it settles at ``b / alpha``, so a small one binds hard.
        rate: Step size of ``lambda``.
        buckets: Hashed values kept per slicing.
        base: The loss that is constrained.
        ramp: How the weight rises.
    """

    slices: tuple[str, ...] = ()
    ctr_buckets: int = 0
    column: str = ""
    weight: float = 0.1
    alpha: float = 0.05
    rate: float = 0.05
    buckets: int = 256
    base: Loss = field(default_factory=LogLoss)
    ramp: Ramp = field(default_factory=Ramp)

    def __post_init__(self) -> None:
        if not self.slices and self.ctr_buckets < 2:
            raise ConfigError(
                "bias_constraints: there is nothing to constrain. Name features in slices, such "
                'as ["slot", "slot*device"], or set ctr_buckets to 2 or more.'
            )
        if self.weight < 0.0 or self.alpha <= 0.0 or not 0.0 < self.rate * self.alpha < 1.0:
            raise ConfigError(
                "bias_constraints: weight must be at least 0, alpha and rate above 0 and "
                f"rate * alpha below 1, received {self.weight}, {self.alpha} and {self.rate}."
            )
        if self.buckets < 1:
            raise ConfigError(f"bias_constraints: buckets must be positive, not {self.buckets}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The side column that says who counts."""
        return (self.column,) if self.column else ()

    def build(self, layout: Layout, n_tasks: int) -> ConstraintState:
        """Creates the multipliers.

        Raises:
            ModuleError: the schema has no categorical or binned feature of a given name.
        """
        known = [slot.feature.name for slot in layout.plain]
        for name in self.slices:
            for part in name.split(TIMES):
                if part not in known:
                    raise ModuleError(
                        f"bias_constraints: there is no feature {part!r} to slice by: "
                        f"{nearest(part, known)}. Slices need categorical or binned features."
                    )
        return ConstraintState(self, SliceRows(layout, self.slices, self.buckets), n_tasks)


class ConstraintState(tf.Module):
    """The built form of :class:`ConstrainedLoss`."""

    def __init__(self, config: ConstrainedLoss, rows: SliceRows, n_tasks: int) -> None:
        super().__init__(name="bias_constraints")
        self._config = config
        self._rows = rows
        n_buckets = config.ctr_buckets if config.ctr_buckets > 1 else 0
        self._edges = tf.linspace(LOWEST, HIGHEST, max(n_buckets - 1, 0)).numpy()
        self.multiplier = tf.Variable(tf.zeros([rows.count, n_tasks]), name="multiplier")
        self.by_rate = tf.Variable(tf.zeros([n_buckets, n_tasks]), name="by_rate")

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B]."""
        weight, error = self._errors(forward, batch)
        share = tf.zeros_like(error)
        if self._rows.per_example:
            rows = self._rows(batch.ids)
            pull = self.multiplier / tf.maximum(self._rows.sums(rows, weight), 1e-12)
            share += tf.reduce_sum(tf.gather(pull, rows), axis=1)
        if self.by_rate.shape[0]:
            members = self._members(forward)
            pull = self.by_rate / tf.maximum(tf.einsum("btk,bt->kt", members, weight), 1e-12)
            share += tf.einsum("btk,kt->bt", members, pull)
        # Losses are weighted and averaged by those who call; this undoes both.
        counts = tf.where(batch.weights > 0.0, 1.0 / tf.maximum(batch.weights, 1e-12), 0.0)
        scale = self._config.weight * self._config.ramp(batch) * tf.reduce_sum(batch.weights)
        term = scale * counts * tf.reduce_sum(tf.stop_gradient(share * weight) * error, axis=1)
        return self._config.base(forward, batch) + term

    def learn(self, forward: Forward, batch: Batch) -> None:
        """Moves the multipliers of the slices that have examples."""
        weight, error = self._errors(forward, batch)
        both = tf.concat([weight, weight * error], axis=1)
        if self._rows.per_example:
            sums = self._rows.sums(self._rows(batch.ids), both)
            self._ascend(self.multiplier, *tf.split(sums, 2, axis=1))
        if self.by_rate.shape[0]:
            members = self._members(forward)
            sums = [tf.einsum("btk,bt->kt", members, x) for x in (weight, weight * error)]
            self._ascend(self.by_rate, *sums)

    def _ascend(self, multiplier: tf.Variable, weight: tf.Tensor, error: tf.Tensor) -> None:
        config = self._config
        bias = error / tf.maximum(weight, 1e-12)
        moved = multiplier + config.rate * (bias - config.alpha * multiplier)
        multiplier.assign(tf.where(weight > 0.0, moved, multiplier))

    def _errors(self, forward: Forward, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what each label counts and label minus prediction, both float32[B, T]."""
        weight = batch.weights[:, None] * tf.cast(batch.labels >= 0.0, tf.float32)
        if self._config.column:
            chosen = batch.side[self._config.column] > 0.0
            weight *= tf.cast(chosen, tf.float32)[:, None]
        return weight, tf.maximum(batch.labels, 0.0) - tf.sigmoid(forward.logits)

    def _members(self, forward: Forward) -> tf.Tensor:
        """Returns which bucket of predicted rate each label is in, float32[B, T, K]."""
        logits = tf.stop_gradient(forward.logits)[:, :, None]
        place = tf.reduce_sum(tf.cast(logits >= self._edges, tf.int32), axis=2)
        return tf.one_hot(place, self.by_rate.shape[0])


@dataclass(frozen=True)
class BiasConstraints:
    """Adds a constraint per slice to the loss.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 7.
    Deviations: a slice counts by its mean, not by its sum, so that small slices are heard.
    Reduces to: the loss alone with ``weight = 0``; a huge ``alpha`` nearly so.

    The loss on logged traffic must get a little worse where slices undo confounding: judge by
    bias in the slices and by counterfactual numbers.

    Attributes:
        slices: Features, or combinations such as ``"slot*device"``, whose values are slices.
        ctr_buckets: Further slices by predicted rate; 0 for none.
        column: Side column; only examples with a value above 0 count (randomised ones, say).
        weight: Weight of a slice beside the mean loss.
        alpha: Pull of the multipliers to 0; 0.02 to 0.1 is usual, smaller binds harder.
        rate: Step size of the multipliers.
        ramp_examples: Examples over which the weight rises from 0.
    """

    slices: tuple[str, ...] = ()
    ctr_buckets: int = 0
    column: str = ""
    weight: float = 0.1
    alpha: float = 0.05
    rate: float = 0.05
    ramp_examples: int = 20_000

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="bias_constraints",
        paper="On the Factory Floor (arXiv:2209.05310), section 7",
        extends=frozenset({"loss"}),
    )

    def __post_init__(self) -> None:
        self._loss(LogLoss())

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with constraints around its loss."""
        return replace(recipe, loss=self._loss(recipe.loss))

    def _loss(self, base: Loss) -> Any:  # a StatefulLoss, which the learner builds
        return ConstrainedLoss(
            tuple(self.slices), self.ctr_buckets, self.column, self.weight, self.alpha, self.rate,
            base=base, ramp=Ramp(float(self.ramp_examples)),
        )  # fmt: skip
