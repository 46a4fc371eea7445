"""Online calibration: a layer after the model that learns only from predictions already made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Batch
from ctr.encoding import Layout
from ctr.errors import ConfigError
from ctr.slice_rows import SliceRows


@dataclass(frozen=True)
class NoCalibration:
    """Leaves the logits as they are."""

    def build(self, layout: Layout, slices: Sequence[str], n_tasks: int) -> IdentityState:
        """Returns a state without variables."""
        del layout, slices, n_tasks
        return IdentityState()


class IdentityState(tf.Module):
    """The built form of :class:`NoCalibration`."""

    def __call__(self, logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Returns ``logits``."""
        del ids
        return logits

    def learn(self, logits: tf.Tensor, batch: Batch) -> None:
        """Learns nothing."""


@dataclass(frozen=True)
class SliceBias:
    """Adds one learned bias per value of each sliced feature to the logit.

    The model's loss is taken on the calibrated logit with the biases held constant. Learning the
    model on its own logit instead lets both chase the same drift and overshoot together.

    Each bias takes damped Newton steps on its own slice: ``b -= sum(p - y) / (h + prior)``, where
    ``h`` is the information ``sum(p * (1 - p))`` seen so far, bounded by ``memory`` so that the
    bias keeps following a drifting stream.

    Paper: the per-slice sampling/calibration loop of "On the Factory Floor" (arXiv:2209.05310),
    sections 3.3 and 7, whose calibration layer is not specified; the update rule is ours.
    Reduces to: the model's own logits as ``prior`` grows.

    Attributes:
        buckets: Hashed values kept per sliced feature.
        prior: Information a slice needs before its bias moves half of the way.
        memory: Bound on the information that is remembered.
    """

    buckets: int = 1024
    prior: float = 30.0
    memory: float = 500.0

    def __post_init__(self) -> None:
        check_newton("slice_bias", self.prior, self.memory)
        if self.buckets < 1:
            raise ConfigError(f"slice_bias: buckets must be at least 1, received {self.buckets}.")

    def build(self, layout: Layout, slices: Sequence[str], n_tasks: int) -> SliceBiasState:
        """Creates one table of biases per sliced plain feature."""
        return SliceBiasState(self, SliceRows(layout, slices, self.buckets), n_tasks)


class SliceBiasState(tf.Module):
    """The built form of :class:`SliceBias`."""

    def __init__(self, config: SliceBias, rows: SliceRows, n_tasks: int) -> None:
        super().__init__(name="slice_bias")
        self._config = config
        self._rows = rows
        self.bias = tf.Variable(tf.zeros([rows.count, n_tasks]), name="bias")
        self.information = tf.Variable(tf.zeros([rows.count, n_tasks]), name="information")

    def __call__(self, logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Returns calibrated logits float32[B, T]."""
        if not self._rows.per_example:
            return logits
        return logits + tf.reduce_sum(tf.gather(self.bias, self._rows(ids)), axis=1)

    def learn(self, logits: tf.Tensor, batch: Batch) -> None:
        """Moves the biases towards the batch's labels."""
        if not self._rows.per_example:
            return
        residual, curvature = newton_terms(self(logits, batch.ids), batch)
        # One pass for both: a compiled scatter costs by the row, not by the column.
        both = tf.concat([residual, curvature], axis=1)
        sums = self._rows.sums(self._rows(batch.ids), both)
        residuals, curvatures = tf.split(sums, 2, axis=1)
        information = self.information + curvatures
        step = residuals / (information + self._config.prior)
        # The slices of an example share its residual.
        self.bias.assign_sub(step / self._rows.per_example)
        self.information.assign(tf.minimum(information, self._config.memory))


def newton_terms(logits: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what a Newton step on a logit is made of, 0 where a label is not known.

    Args:
        logits: float32[B, T], calibrated.
        batch: The batch they were predicted for.

    Returns:
        First and second derivative of the weighted log loss, float32[B, T] each.
    """
    prob = tf.sigmoid(logits)
    weight = batch.weights[:, None] * tf.cast(batch.labels >= 0.0, tf.float32)
    return weight * (prob - tf.maximum(batch.labels, 0.0)), weight * prob * (1.0 - prob)


def check_newton(what: str, prior: float, memory: float) -> None:
    """Checks the settings of damped Newton steps.

    Raises:
        ConfigError: one is not above 0.
    """
    if prior <= 0.0 or memory <= 0.0:
        raise ConfigError(
            f"{what}: prior and memory must be above 0, received {prior} and {memory}."
        )
