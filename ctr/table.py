"""The fused table: one row per hashed id, for all features, embedding and wide weights together.

One gather and one scatter serve every feature, and the cost of a step does not depend on the
number of rows.
"""

from __future__ import annotations

from itertools import groupby

import tensorflow as tf

from ctr.api import RowOptimizer


class Table(tf.Module):
    """Rows of ``dim`` embedding columns followed by ``n_tasks`` wide weights.

    Args:
        n_rows: Rows, R; row 0 is the padding row of bags.
        dim: Embedding columns, D; drawn uniformly from ``+-init_scale``.
        n_tasks: Wide columns, T; they start at 0.
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
        n_tasks: int,
        embedding: RowOptimizer,
        linear: RowOptimizer,
        n_inputs: int,
        init_scale: float,
        seed: int,
    ) -> None:
        super().__init__(name="table")
        start = tf.random.stateless_uniform(
            [n_rows, dim], [seed, 0xC7], -init_scale, init_scale
        )
        self.weights = tf.Variable(tf.pad(start, [[0, 0], [0, n_tasks]]), name="weights")
        parts = [(p, n) for p, n in ((embedding, dim), (linear, n_tasks)) if n]
        self.slots = []
        self._columns = []
        left = 0
        for kind, group in groupby(parts, key=lambda part: type(part[0])):
            members = list(group)
            right = left + sum(n for _, n in members)
            self.slots.append(kind.build(members, self.weights[:, left:right], n_inputs))
            self._columns.append((left, right))
            left = right

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns the rows of ``ids`` int32[B, S] as float32[B, S, D + T]."""
        return tf.gather(self.weights, ids)

    def update(self, ids: tf.Tensor, rows: tf.Tensor, gradients: tf.Tensor) -> None:
        """Moves the rows of a batch.

        Args:
            ids: int32[B, S], duplicates allowed.
            rows: float32[B, S, D + T], the values that were looked up.
            gradients: float32[B, S, D + T], of the summed loss.
        """
        width = self.weights.shape[1]
        flat = tf.reshape(ids, [-1])
        values = tf.reshape(rows, [-1, width])
        gradients = tf.reshape(gradients, [-1, width])
        steps = [
            slot.deltas(flat, values[:, left:right], gradients[:, left:right])
            for slot, (left, right) in zip(self.slots, self._columns, strict=True)
        ]
        if not any(replaces for _, replaces in steps):
            delta = tf.concat([step for step, _ in steps], axis=1)
            self.weights.scatter_add(tf.IndexedSlices(delta, flat))
            return
        self._mixed_update(flat, steps)

    def _mixed_update(
        self, flat: tf.Tensor, steps: list[tuple[tf.Tensor, bool]]
    ) -> None:
        # Additions first: a replacing scatter must not undo what other columns added, so it
        # puts back the freshly gathered values there.
        zeros = [tf.zeros_like(step) if replaces else step for step, replaces in steps]
        self.weights.scatter_add(tf.IndexedSlices(tf.concat(zeros, axis=1), flat))
        fresh = tf.gather(self.weights, flat)
        parts = [
            step if replaces else fresh[:, left:right]
            for (step, replaces), (left, right) in zip(steps, self._columns, strict=True)
        ]
        self.weights.scatter_update(tf.IndexedSlices(tf.concat(parts, axis=1), flat))
