"""Row optimizers: they touch only the table rows of a batch, whatever the table's size.

Gradients arrive per occurrence: an id that stands twice in a batch has two lines. AdaGrad counts
the squares of both; summing first (as Keras does) is the other usual choice and differs only by
the cross term. Everything is a gather and a scatter, so it compiles, and a compiled scatter on
CPU adds in a fixed order: equal inputs give equal bits, on any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


def _per_column(pairs: Sequence[tuple[float, int]]) -> np.ndarray:
    """Returns one value per column, float32[C], from (value, number of columns) pairs."""
    return np.concatenate([np.full(width, value, np.float32) for value, width in pairs])


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

    rate: float = 0.1
    initial_accumulator: float = 1e-6
    split_rate: bool = False

    @staticmethod
    def build(parts: Sequence[tuple[AdaGrad, int]], table: tf.Variable, n_inputs: int) -> tf.Module:
        """Creates the accumulators for neighbouring column ranges, each with its own settings.

        Args:
            parts: Settings and number of columns of each range, left to right.
            table: The table's columns these ranges cover, float32[R, C].
            n_inputs: Number of features of an example.
        """
        rates = [(p.rate / np.sqrt(n_inputs) if p.split_rate else p.rate, n) for p, n in parts]
        initial = _per_column([(p.initial_accumulator, n) for p, n in parts])
        return _AdaGradRows(_per_column(rates), initial, table.shape[0])


class _AdaGradRows(tf.Module):
    def __init__(self, rate: np.ndarray, initial: np.ndarray, n_rows: int) -> None:
        super().__init__(name="adagrad_rows")
        self._rate = rate
        self.accumulator = tf.Variable(tf.tile(initial[None], [n_rows, 1]), name="accumulator")

    def deltas(
        self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor
    ) -> tuple[tf.Tensor, bool]:
        del values
        self.accumulator.scatter_add(tf.IndexedSlices(gradients * gradients, rows))
        total = tf.gather(self.accumulator, rows)
        return -self._rate * gradients * tf.math.rsqrt(total), False


@dataclass(frozen=True)
class Ftrl:
    """FTRL-Proximal per coordinate.

    Paper: McMahan et al. 2013, "Ad click prediction: a view from the trenches", Algorithm 1.
    The gradients of a batch are summed per row before the step.

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

    @staticmethod
    def build(parts: Sequence[tuple[Ftrl, int]], table: tf.Variable, n_inputs: int) -> tf.Module:
        """Creates ``z`` and ``n`` such that the present values of the table are reproduced."""
        del n_inputs
        settings = [
            _per_column([(getattr(p, name), n) for p, n in parts])
            for name in ("alpha", "beta", "l1", "l2")
        ]
        return _FtrlRows(*settings, start=table)


class _FtrlRows(tf.Module):
    def __init__(
        self, alpha: np.ndarray, beta: np.ndarray, l1: np.ndarray, l2: np.ndarray, start: tf.Tensor
    ) -> None:
        super().__init__(name="ftrl_rows")
        self._alpha, self._beta, self._l1, self._l2 = alpha, beta, l1, l2
        # At n = 0 the closed form gives w = -(z - sign(z) l1) / (beta / alpha + l2).
        self.z = tf.Variable(-start * (beta / alpha + l2) - tf.sign(start) * l1, name="z")
        self.n = tf.Variable(tf.zeros_like(start), name="n")

    def deltas(
        self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor
    ) -> tuple[tf.Tensor, bool]:
        before = tf.gather(self.n, rows)
        self.n.scatter_add(tf.IndexedSlices(gradients * gradients, rows))
        after = tf.gather(self.n, rows)
        self.z.scatter_add(tf.IndexedSlices(gradients, rows))
        sigma = (tf.sqrt(after) - tf.sqrt(before)) / self._alpha
        # Every occurrence of a row computes the same z, so the scatter may put it in any order.
        z = tf.gather(self.z, rows) - sigma * values
        self.z.scatter_update(tf.IndexedSlices(z, rows))
        scale = (self._beta + tf.sqrt(after)) / self._alpha + self._l2
        shrunk = tf.sign(z) * tf.maximum(tf.abs(z) - self._l1, 0.0)
        return -shrunk / scale, True
