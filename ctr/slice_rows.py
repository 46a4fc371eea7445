"""Which slices an example belongs to: one row per hashed value of each sliced feature."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ctr.encoding import Layout


class SliceRows:
    """Rows of a table of slices; every example is in one row per sliced feature.

    Args:
        layout: Encoded features.
        slices: Names of sliced features; those that are no single id are left out.
        buckets: Hashed values kept per feature.
        everything: Adds a row that every example is in.
    """

    def __init__(
        self, layout: Layout, slices: Sequence[str], buckets: int, everything: bool = False
    ) -> None:
        self._columns = [
            slot.start
            for slot in layout.slots
            if slot.feature.name in slices and slot.stop == slot.start + 1
        ]
        self._buckets = buckets
        self._everything = everything

    @property
    def per_example(self) -> int:
        """Rows an example is in, S."""
        return len(self._columns) + self._everything

    @property
    def count(self) -> int:
        """Rows of the table, N."""
        return len(self._columns) * self._buckets + self._everything

    def __call__(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns rows int32[B, S] for ids int32[B, n_slots]."""
        values = tf.gather(ids, self._columns, axis=1) % self._buckets
        rows = values + self._buckets * tf.range(len(self._columns))
        if not self._everything:
            return rows
        return tf.pad(rows, [[0, 0], [0, 1]], constant_values=self.count - 1)

    def sums(self, rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Sums ``values`` float32[B, T] over the examples of each row, float32[N, T]."""
        lines = tf.repeat(values, self.per_example, axis=0)
        return tf.math.unsorted_segment_sum(lines, tf.reshape(rows, [-1]), self.count)
