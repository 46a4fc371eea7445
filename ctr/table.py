"""The fused table: one row per hashed id, shared by all features.

One gather and one scatter serve every feature, and the cost of a step does not depend on the
number of rows. Embeddings and wide weights of a row live in two variables: a row of 16 floats is
one cache line and one vector register, a row of 17 would be neither.
"""

from __future__ import annotations

import tensorflow as tf

from ctr.api import RowOptimizer, Rows, RowState


class Table(tf.Module):
    """``n_rows`` rows of ``dim`` embedding columns and ``n_wide`` wide weights.

    Args:
        n_rows: Rows, R; row 0 is the padding row of bags.
        dim: Embedding columns, D; drawn uniformly from ``+-init_scale``.
        n_wide: Wide columns, one per task unless the model asks for more; they start at 0.
        embedding: Row optimizer of the embedding columns.
        linear: Row optimizer of the wide columns.
        n_inputs: Number of features of an example.
        init_scale: Half width of the initial values.
        seed: Decides the initial values.
    """

    def __init__(
        self,
        n_rows: int,
        dim: int,
        n_wide: int,
        embedding: RowOptimizer,
        linear: RowOptimizer,
        n_inputs: int,
        init_scale: float,
        seed: int,
    ) -> None:
        super().__init__(name="table")
        start = tf.random.stateless_uniform([n_rows, dim], [seed, 0xC7], -init_scale, init_scale)
        self.embedding, embedding_slots = self._columns("embedding", start, embedding, n_inputs)
        wide = tf.zeros([n_rows, n_wide])
        self.wide, wide_slots = self._columns("wide", wide, linear, n_inputs)
        self.slots = [embedding_slots, wide_slots]

    def _columns(
        self, name: str, start: tf.Tensor, optimizer: RowOptimizer, n_inputs: int
    ) -> tuple[tf.Variable, RowState]:
        """Creates columns that start at float32[R, C], and the slots of their optimizer."""
        weights = tf.Variable(start, name=name)
        return weights, optimizer.build(weights, n_inputs)

    def lookup(self, ids: tf.Tensor) -> Rows:
        """Returns the rows of ``ids`` int32[B, S]."""
        return Rows(tf.gather(self.embedding, ids), tf.gather(self.wide, ids))

    def update(self, ids: tf.Tensor, rows: Rows, gradients: Rows) -> None:
        """Moves the rows of a batch.

        Args:
            ids: int32[B, S], duplicates allowed.
            rows: The values that were looked up.
            gradients: Those of the summed loss, of the same shapes.
        """
        flat = tf.reshape(ids, [-1])
        # Not [-1, width]: without hashed features or columns there is nothing to divide by.
        n = flat.shape[0]
        for slot, values, gradient in zip(self.slots, rows, gradients, strict=True):
            shape = [n, values.shape[-1]]
            slot.apply(flat, tf.reshape(values, shape), tf.reshape(gradient, shape))

    def clear(self, rows: tf.Tensor) -> None:
        """Forgets rows int32[N], duplicates allowed: weights 0, optimizer slots as at the start."""
        for slot, weights in zip(self.slots, (self.embedding, self.wide), strict=True):
            zeros = tf.zeros([rows.shape[0], weights.shape[1]])
            weights.scatter_update(tf.IndexedSlices(zeros, rows))
            slot.clear(rows)
