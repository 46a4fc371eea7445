"""Which slices an example belongs to: one row per hashed value of each slicing."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ctr.encoding import Layout

#: Joins the names of features whose combinations are slices.
TIMES = "*"


class SliceRows:
    """Rows of a table of slices; every example is in one row per slicing.

    Args:
        layout: Encoded features.
        slices: Slicings: the name of a feature, or names joined by ``*`` for each combination of
            their values. Those that are no single id (bags, numbers, other columns) are left out.
        buckets: Hashed values kept per slicing.
        everything: Adds a row that every example is in.
    """

    def __init__(
        self, layout: Layout, slices: Sequence[str], buckets: int, everything: bool = False
    ) -> None:
        starts = {slot.feature.name: slot.start for slot in layout.plain}
        named = [name.split(TIMES) for name in slices]
        self._columns = [
            [starts[part] for part in parts]
            for parts in named
            if all(part in starts for part in parts)
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
        firsts = tf.constant([columns[0] for columns in self._columns], tf.int32)
        values = tf.gather(ids, firsts, axis=1) % self._buckets
        if any(len(columns) > 1 for columns in self._columns):
            values = tf.stack([self._combined(ids, columns) for columns in self._columns], axis=1)
        rows = values + self._buckets * tf.range(len(self._columns))
        if not self._everything:
            return rows
        return tf.pad(rows, [[0, 0], [0, 1]], constant_values=self.count - 1)

    def sums(self, rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Sums ``values`` float32[B, T] over the examples of each row, float32[N, T]."""
        lines = tf.repeat(values, self.per_example, axis=0)
        return tf.math.unsorted_segment_sum(lines, tf.reshape(rows, [-1]), self.count)

    def _combined(self, ids: tf.Tensor, columns: Sequence[int]) -> tf.Tensor:
        value = ids[:, columns[0]]
        for column in columns[1:]:
            # Wraps around; only equal combinations have to agree.
            value = value * 1_000_003 + ids[:, column]
        return value % self._buckets
