"""Second-moment statistics of one weight matrix, as two Kronecker factors in diagonal blocks."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ctr.optimizers.inverse_root import Roots


class Factor(tf.Module):
    """One side of a matrix: statistics, a snapshot of them, and the roots in use.

    Args:
        size: Rows (or columns) of the matrix.
        block: Largest size of a diagonal block; blocks are made as equal as possible.
        name: Name of the side.
    """

    def __init__(self, size: int, block: int, name: str) -> None:
        super().__init__(name=name)
        self.count = -(-size // block)
        self.width = -(-size // self.count)
        self.padding = self.count * self.width - size
        shape = [self.count, self.width, self.width]
        # Sums over a long stream outgrow float32's 24 bits.
        self.statistics = tf.Variable(tf.zeros(shape, tf.float64), name="statistics")
        self.snapshot = tf.Variable(tf.zeros(shape, tf.float64), name="snapshot")
        self.roots = tf.Variable(tf.eye(self.width, batch_shape=[self.count]), name="roots")

    def observe(self, blocks: tf.Tensor, decay: float) -> None:
        """Adds the second moments of ``blocks`` float32[count, width, n]."""
        moment = tf.cast(tf.matmul(blocks, blocks, transpose_b=True), tf.float64)
        if decay == 1.0:
            self.statistics.assign_add(moment)
        else:
            self.statistics.assign(decay * self.statistics + (1.0 - decay) * moment)

    def use(self, found: Roots) -> int:
        """Takes over accepted roots, keeps the old ones elsewhere; returns how many those are."""
        roots = found.roots
        if not found.accepted.all():
            roots = np.where(found.accepted[:, None, None], roots, self.roots.numpy())
        self.roots.assign(roots.astype(np.float32))
        return int((~found.accepted).sum())


class Kronecker(tf.Module):
    """Both sides of a matrix float32[m, n]: ``D = L^(-1/4) G R^(-1/4)``, block by block.

    The blocks of a side are the diagonal blocks of its statistic, ``L ~ blocks of G G^T`` summed
    over all columns. Cutting the matrix itself into tiles, each with statistics of its own, costs
    the same products but a root per tile and side.

    Args:
        m: Rows.
        n: Columns.
        block: Largest size of a diagonal block.
    """

    def __init__(self, m: int, n: int, block: int) -> None:
        super().__init__(name="kronecker")
        self.left, self.right = Factor(m, block, "left"), Factor(n, block, "right")

    def observe(self, gradient: tf.Tensor, decay: float) -> None:
        """Adds a gradient float32[m, n] to the statistics; ``decay`` 1 sums, below 1 averages."""
        padded = self._padded(gradient)
        self.left.observe(self._rows(padded), decay)
        self.right.observe(tf.transpose(self._columns(padded), [1, 2, 0]), decay)

    def precondition(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns ``D`` float32[m, n]."""
        padded = self._padded(gradient)
        shape = padded.shape
        # The right side first: the left side's product then needs no change of layout.
        half = tf.einsum("mjb,jbc->mjc", self._columns(padded), self.right.roots)
        half = self._rows(tf.reshape(half, shape))
        m, n = gradient.shape
        return tf.reshape(tf.matmul(self.left.roots, half), shape)[:m, :n]

    def _padded(self, gradient: tf.Tensor) -> tf.Tensor:
        # A padded row is 0 before and after: its block is diagonal there.
        return tf.pad(gradient, [[0, self.left.padding], [0, self.right.padding]])

    def _rows(self, padded: tf.Tensor) -> tf.Tensor:
        return tf.reshape(padded, [self.left.count, self.left.width, -1])

    def _columns(self, padded: tf.Tensor) -> tf.Tensor:
        return tf.reshape(padded, [-1, self.right.count, self.right.width])
