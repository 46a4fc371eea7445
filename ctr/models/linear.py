"""The linear model, which is also the wide part of the deep ones.

Each hashed feature contributes the weight of its id times a *gain* of the feature, learned with
the rest. The product is still a linear model to whoever serves it; what the gain adds is a
learned step size per feature: the effective rate of a feature's weights grows with the square of
its gain, and its gain follows the progressive gradient, so features whose ids generalise are
trusted more and noisy ones less, without a search over per-feature rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Features, Forward
from ctr.encoding import Layout


class WidePart(tf.Module):
    """``bias + numeric @ w + sum_f gain_f * weight_f``, one column per task.

    Args:
        layout: Encoded features.
        n_tasks: Number of labels, T.
        gains: False fixes every gain at 1 (plain logistic regression).
    """

    def __init__(self, layout: Layout, n_tasks: int, gains: bool = True) -> None:
        super().__init__(name="wide")
        self.bias = tf.Variable(tf.zeros([n_tasks]), name="bias")
        self.numeric = tf.Variable(tf.zeros([len(layout.numeric), n_tasks]), name="numeric")
        self.gain = tf.Variable(tf.ones([layout.n_features, n_tasks]), name="gain", trainable=gains)

    def __call__(self, features: Features) -> tf.Tensor:
        """Returns logits float32[B, T]."""
        ids = tf.reduce_sum(features.linear * self.gain, axis=1)
        return self.bias + ids + tf.matmul(features.numeric, self.numeric)


@dataclass(frozen=True)
class Linear:
    """Logistic regression over hashed ids and numerics, the honest baseline.

    Attributes:
        gains: Learn one gain per feature (see the module's note); False is the textbook model.
    """

    gains: bool = True

    @property
    def dim(self) -> int:
        """No embedding columns."""
        return 0

    def build(self, layout: Layout, n_tasks: int, seed: int) -> LinearModel:
        """Creates the variables; the seed has nothing to decide here."""
        del seed
        return LinearModel(WidePart(layout, n_tasks, self.gains))


class LinearModel(tf.Module):
    """The built form of :class:`Linear`."""

    dim = 0

    def __init__(self, wide: WidePart) -> None:
        super().__init__(name="linear")
        self.wide = wide

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]."""
        del training
        return Forward(self.wide(features), {})
