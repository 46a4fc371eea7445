"""Row optimizers: they touch only the table rows of a batch, whatever the table's size.

Gradients arrive per occurrence: an id that stands twice in a batch has two lines. AdaGrad counts
the squares of both; summing first (as Keras does) is the other usual choice and differs only by
the cross term. Everything is a gather and a scatter, so it compiles, and a compiled scatter on
CPU adds in a fixed order: equal inputs give equal bits, on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class AdaGrad:
    """AdaGrad per coordinate: ``acc += g**2; w -= rate * g / sqrt(acc)``.

    Paper: Duchi, Hazan, Singer 2011, diagonal form.

    Attributes:
        rate: Step size.
        initial_accumulator: Keras' customary 0.1 leaves embeddings untrained in a single pass,
            because their gradients are small; start near 0 for embeddings.
        split_rate: True divides the rate by the square root of the number of inputs, because
            that many weights move together when one example is learned.
    """

    rate: float = 0.05
    initial_accumulator: float = 1e-6
    split_rate: bool = False

    def build(self, weights: tf.Variable, n_inputs: int) -> tf.Module:
        """Creates the accumulators of ``weights`` float32[R, C]."""
        return _AdaGradRows(self, weights, n_inputs)


class _AdaGradRows(tf.Module):
    def __init__(self, config: AdaGrad, weights: tf.Variable, n_inputs: int) -> None:
        super().__init__(name="adagrad_rows")
        self._rate = config.rate / n_inputs**0.5 if config.split_rate else config.rate
        self._weights, self._initial = weights, config.initial_accumulator
        start = tf.fill(weights.shape, self._initial)
        self.accumulator = tf.Variable(start, name="accumulator")

    def apply(self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor) -> None:
        del values
        self.accumulator.scatter_add(tf.IndexedSlices(gradients * gradients, rows))
        total = tf.gather(self.accumulator, rows)
        step = -self._rate * gradients * tf.math.rsqrt(total)
        self._weights.scatter_add(tf.IndexedSlices(step, rows))

    def clear(self, rows: tf.Tensor) -> None:
        start = tf.fill([rows.shape[0], self._weights.shape[1]], self._initial)
        self.accumulator.scatter_update(tf.IndexedSlices(start, rows))


@dataclass(frozen=True)
class Ftrl:
    """FTRL-Proximal per coordinate.

    Paper: McMahan et al. 2013, "Ad click prediction: a view from the trenches", Algorithm 1.
    The gradients of a batch are summed per row before the step of ``z``; ``n`` counts the square
    of every occurrence.

    Attributes:
        alpha: Step size.
        beta: Smoothing of the per-coordinate rate ``alpha / (beta + sqrt(n))``.
        l1: Weights whose ``|z|`` stays below it are exactly 0.
        l2: Shrinkage towards 0.
    """

    alpha: float = 0.1
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0

    def build(self, weights: tf.Variable, n_inputs: int) -> tf.Module:
        """Creates ``z`` and ``n`` such that the present ``weights`` are reproduced."""
        del n_inputs
        return _FtrlRows(self, weights)


class _FtrlRows(tf.Module):
    def __init__(self, config: Ftrl, weights: tf.Variable) -> None:
        super().__init__(name="ftrl_rows")
        self._config = config
        self._weights = weights
        # At n = 0 the closed form gives w = -(z - sign(z) l1) / (beta / alpha + l2).
        scale = config.beta / config.alpha + config.l2
        self.z = tf.Variable(-weights * scale - tf.sign(weights) * config.l1, name="z")
        self.n = tf.Variable(tf.zeros_like(weights), name="n")

    def apply(self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor) -> None:
        config = self._config
        before = tf.gather(self.n, rows)
        self.n.scatter_add(tf.IndexedSlices(gradients * gradients, rows))
        after = tf.gather(self.n, rows)
        self.z.scatter_add(tf.IndexedSlices(gradients, rows))
        sigma = (tf.sqrt(after) - tf.sqrt(before)) / config.alpha
        # Every occurrence of a row computes the same z, so the scatter may put it in any order.
        z = tf.gather(self.z, rows) - sigma * values
        self.z.scatter_update(tf.IndexedSlices(z, rows))
        scale = (config.beta + tf.sqrt(after)) / config.alpha + config.l2
        shrunk = tf.sign(z) * tf.maximum(tf.abs(z) - config.l1, 0.0)
        self._weights.scatter_update(tf.IndexedSlices(-shrunk / scale, rows))

    def clear(self, rows: tf.Tensor) -> None:
        zeros = tf.IndexedSlices(tf.zeros([rows.shape[0], self._weights.shape[1]]), rows)
        self.z.scatter_update(zeros)
        self.n.scatter_update(zeros)
