"""Table rows: plain descent, and which rows may be touched at all without saying who was there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from ctr.errors import ConfigError

MODES = ("dense", "adafest")


@dataclass(frozen=True)
class RowDescent:
    """Plain gradient descent on table rows: linear in the gradient, so that noise may cancel.

    AdaGrad would turn the noise of rows that nobody visits into steps of full size.

    Attributes:
        rate: Step size, on the gradient of the summed loss.
    """

    rate: float = 0.05

    def __post_init__(self) -> None:
        if not self.rate > 0.0:
            raise ConfigError(f"row descent: rate must be above 0, received {self.rate}.")

    def build(self, weights: tf.Variable, n_inputs: int) -> tf.Module:
        """Creates a state without slots."""
        del n_inputs
        return _DescentRows(self.rate, weights)


class _DescentRows(tf.Module):
    def __init__(self, rate: float, weights: tf.Variable) -> None:
        super().__init__(name="descent_rows")
        self._rate, self._weights = rate, weights

    def apply(self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor) -> None:
        del values
        self._weights.scatter_add(tf.IndexedSlices(-self._rate * gradients, rows))

    def clear(self, rows: tf.Tensor) -> None:
        del rows


def split_noise(noise: float, share: float) -> tuple[float, float]:
    """Returns the multipliers of the histogram and of the gradient that cost ``noise`` together.

    ``noise ** -2 = first ** -2 + second ** -2``; ``share`` of the budget goes to the histogram.
    """
    return noise / math.sqrt(share), noise / math.sqrt(1.0 - share)


def contributions(ids: tf.Tensor, counted: tf.Tensor, n_rows: int) -> tf.Tensor:
    """Returns how much each row was touched, float32[R]; no example adds more than norm 1.

    An example spreads ``1 / sqrt(n)`` over each of its n distinct rows.

    Args:
        ids: int32[B, S]; row 0 is padding.
        counted: float32[B], 0 for examples that do not count.
        n_rows: R.
    """
    before = tf.linalg.band_part(tf.ones([ids.shape[1], ids.shape[1]]), -1, 0) - tf.eye(
        ids.shape[1]
    )
    repeated = tf.reduce_any((ids[:, :, None] == ids[:, None, :]) & (before > 0.0)[None], axis=2)
    first = tf.cast(~repeated & (ids > 0), tf.float32) * counted[:, None]
    share = first * tf.math.rsqrt(tf.maximum(tf.reduce_sum(first, axis=1, keepdims=True), 1.0))
    flat = tf.reshape(ids, [-1])
    return tf.math.unsorted_segment_sum(tf.reshape(share, [-1]), flat, n_rows)
