"""What every built model with a wide part beside a tower has in common."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tf_keras

from ctr.api import DenseLayer, Features, Forward
from ctr.models.layers import run, run_head
from ctr.models.linear import WidePart


class WideDeepModel(tf.Module):
    """``wide(x) + head(hidden(inputs))``; what the hidden layers read is for subclasses to say.

    Attributes:
        wide: The wide part.
        hidden: The layers of the tower.
        head: The layer behind them, one output per task.
        below: Dense layers that make what the tower reads.
        tower_inputs: Returns what the first hidden layer reads, float32[B, C], and what the dense
            layers below it did.
    """

    wide: WidePart
    hidden: list[tf_keras.layers.Dense]
    head: tf_keras.layers.Dense
    below: list[tf_keras.layers.Dense]
    tower_inputs: Callable[[Features], tuple[tf.Tensor, tuple[DenseLayer, ...]]]

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]; ``aux`` holds the last hidden layer."""
        del training
        inputs, below = self.tower_inputs(features)
        last, layers = run(self.hidden, inputs)
        return self.outputs(features, last, below + layers)

    def outputs(
        self, features: Features, last: tf.Tensor, layers: tuple[DenseLayer, ...] = ()
    ) -> Forward:
        """Returns the logits for a last hidden layer float32[B, H] and the layers before it."""
        deep, head = run_head(self.head, last)
        return Forward(self.wide(features) + deep, {"hidden": last}, layers + head)

    @property
    def dense_layers(self) -> list[tf_keras.layers.Dense]:
        """The layers that a forward pass lists, in the same order."""
        return [*self.below, *self.hidden, self.head]
