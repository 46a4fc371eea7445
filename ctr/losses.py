"""Per-example losses."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Batch, Forward


@dataclass(frozen=True)
class LogLoss:
    """Logistic loss in nats, summed over the known labels of an example."""

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B]; an unknown label (-1) adds nothing."""
        known = batch.labels >= 0.0
        labels = tf.where(known, batch.labels, 0.0)
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, forward.logits)
        return tf.reduce_sum(tf.where(known, loss, 0.0), axis=1)
