"""Online calibration: a layer after the model that learns only from predictions already made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Batch
from ctr.encoding import Layout


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

    def build(self, layout: Layout, slices: Sequence[str], n_tasks: int) -> SliceBiasState:
        """Creates one table of biases per sliced plain feature."""
        columns = [
            slot.start
            for slot in layout.slots
            if slot.feature.name in slices and slot.stop == slot.start + 1
        ]
        return SliceBiasState(self, columns, n_tasks)


class SliceBiasState(tf.Module):
    """The built form of :class:`SliceBias`."""

    def __init__(self, config: SliceBias, columns: Sequence[int], n_tasks: int) -> None:
        super().__init__(name="slice_bias")
        self._config = config
        self._columns = list(columns)
        size = [len(columns) * config.buckets, n_tasks]
        self.bias = tf.Variable(tf.zeros(size), name="bias")
        self.information = tf.Variable(tf.zeros(size), name="information")

    def _rows(self, ids: tf.Tensor) -> tf.Tensor:
        values = tf.gather(ids, self._columns, axis=1) % self._config.buckets
        return values + self._config.buckets * tf.range(len(self._columns))

    def __call__(self, logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Returns calibrated logits float32[B, T]."""
        if not self._columns:
            return logits
        return logits + tf.reduce_sum(tf.gather(self.bias, self._rows(ids)), axis=1)

    def learn(self, logits: tf.Tensor, batch: Batch) -> None:
        """Moves the biases towards the batch's labels."""
        if not self._columns:
            return
        prob = tf.sigmoid(self(logits, batch.ids))
        weight = batch.weights[:, None] * tf.cast(batch.labels >= 0.0, tf.float32)
        residual = weight * (prob - tf.maximum(batch.labels, 0.0))
        curvature = weight * prob * (1.0 - prob)
        rows = self._rows(batch.ids)
        flat = tf.reshape(rows, [-1])
        n_slices = len(self._columns)

        def per_slice(values: tf.Tensor) -> tf.Tensor:
            lines = tf.reshape(tf.repeat(values, n_slices, axis=0), [-1, values.shape[1]])
            return tf.math.unsorted_segment_sum(lines, flat, self.bias.shape[0])

        information = self.information + per_slice(curvature)
        step = per_slice(residual) / (information + self._config.prior)
        self.bias.assign_sub(step / n_slices)
        self.information.assign(tf.minimum(information, self._config.memory))
