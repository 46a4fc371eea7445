"""From looked-up rows and raw numerics to what a model sees: pooling and standardizing."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ctr.api import Features, Rows
from ctr.encoding import Layout

#: Standardized numerics beyond this many deviations are cut, so that one wild value cannot throw
#: the dense weights.
CLIP = 8.0


def pool(layout: Layout, ids: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns one vector per feature, float32[B, F, C]: bags become the mean of their tokens."""
    parts = [rows[:, : layout.n_plain]]
    for slot in layout.bags:
        mask = tf.cast(ids[:, slot.start : slot.stop] > 0, rows.dtype)[:, :, None]
        total = tf.reduce_sum(rows[:, slot.start : slot.stop] * mask, axis=1, keepdims=True)
        count = tf.reduce_sum(mask, axis=1, keepdims=True)
        parts.append(total / tf.maximum(count, 1.0))
    return tf.concat(parts, axis=1)


class Standardizer(tf.Module):
    """Log-maps, shifts and scales numeric features by the statistics of the stream so far.

    Statistics are float64 and use Chan's merge of (count, mean, M2), so they do not depend on
    how many examples came before. Predictions use those from before the batch.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(name="standardizer")
        width = len(layout.numeric)
        self._log = np.array([f.log for f in layout.numeric], bool)
        self._standardize = np.array([f.standardize for f in layout.numeric], bool)
        self.count = tf.Variable(tf.zeros([width], tf.float64), name="count")
        self.mean = tf.Variable(tf.zeros([width], tf.float64), name="mean")
        self.m2 = tf.Variable(tf.zeros([width], tf.float64), name="m2")

    def __call__(self, numeric: tf.Tensor) -> tf.Tensor:
        """Maps raw float32[B, M] (NaN = missing) to float32[B, M]; missing becomes 0."""
        mapped = self._mapped(numeric)
        variance = tf.where(self.count > 1.0, self.m2 / tf.maximum(self.count, 1.0), 1.0)
        scale = tf.math.rsqrt(tf.where(variance > 1e-12, variance, 1.0))
        shift = tf.where(self._standardize, self.mean, 0.0)
        scale = tf.where(self._standardize, scale, 1.0)
        scaled = (mapped - tf.cast(shift, tf.float32)) * tf.cast(scale, tf.float32)
        scaled = tf.clip_by_value(scaled, -CLIP, CLIP)
        return tf.where(tf.math.is_nan(numeric), 0.0, scaled)

    def observe(self, numeric: tf.Tensor, weights: tf.Tensor) -> None:
        """Adds a batch to the statistics; rows of weight 0 and missing values do not count."""
        if not numeric.shape[1]:
            return
        known = (weights > 0.0)[:, None] & ~tf.math.is_nan(numeric)
        values = tf.cast(tf.where(known, self._mapped(numeric), 0.0), tf.float64)
        n = tf.reduce_sum(tf.cast(known, tf.float64), axis=0)
        mean = tf.reduce_sum(values, axis=0) / tf.maximum(n, 1.0)
        spread = tf.where(known, tf.square(values - mean), tf.zeros([], tf.float64))
        total = self.count + n
        delta = mean - self.mean
        share = n / tf.maximum(total, 1.0)
        self.m2.assign_add(tf.reduce_sum(spread, axis=0) + delta * delta * self.count * share)
        self.mean.assign_add(delta * share)
        self.count.assign(total)

    def _mapped(self, numeric: tf.Tensor) -> tf.Tensor:
        log = tf.sign(numeric) * tf.math.log1p(tf.abs(numeric))
        return tf.where(self._log, log, numeric)


def features(
    layout: Layout, ids: tf.Tensor, rows: Rows, numeric: tf.Tensor, seen: tf.Tensor
) -> Features:
    """Assembles what a model sees from ids, looked-up rows and standardized numerics."""
    vectors, linear = (pool(layout, ids, part) for part in rows)
    return Features(vectors, linear, numeric, ids, rows, seen)
