"""Per-example losses."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import tensorflow as tf

from ctr.api import Batch, Forward, LossState, StatefulLoss
from ctr.encoding import Layout


@dataclass(frozen=True)
class LogLoss:
    """Logistic loss in nats, summed over the known labels of an example."""

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B]; an unknown label (-1) adds nothing."""
        known = batch.labels >= 0.0
        labels = tf.where(known, batch.labels, 0.0)
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, forward.logits)
        return tf.reduce_sum(tf.where(known, loss, 0.0), axis=1)


def build_loss(loss: Any, layout: Layout, n_tasks: int) -> tuple[Any, list[LossState]]:
    """Builds the stateful losses among a loss and the losses it is made of.

    Returns:
        The loss to be called, and the states in it, inner ones first.
    """
    states: list[LossState] = []
    if is_dataclass(loss) and not isinstance(loss, type):
        changed = {}
        for part in fields(loss):
            value = getattr(loss, part.name)
            built, inner = build_loss(value, layout, n_tasks)
            states += inner
            if built is not value:
                changed[part.name] = built
        if changed:
            loss = replace(loss, **changed)
    if isinstance(loss, StatefulLoss):
        loss = loss.build(layout, n_tasks)
        states.append(loss)
    return loss, states
