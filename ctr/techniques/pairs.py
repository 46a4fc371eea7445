"""The sum over pairs of RankNet, in the graph, without a [B, B] array.

Rows are sorted by query, so pairs lie near the diagonal. The sum runs over tiles of the band that
the longest query of the batch needs: about ``B * 32`` pairs for pages of up to 16 rows instead of
``B * B``. Values and gradients come from one pass over the pairs.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

#: Rows and columns of a tile.
TILE = 16


def pair_loss(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, query: tf.Tensor
) -> tf.Tensor:
    """Returns ``sum_q W_q * mean over the pairs of q of log(1 + exp(s_neg - s_pos))``.

    A pair is one positive and one negative row of a query and weighs the product of their
    weights; ``W_q`` is the summed weight of the query's rows. A factor common to the weights of
    a query (queries sampled as a whole) hence counts once, and factors of single rows multiply.

    Args:
        logits: float32[B].
        labels: float32[B], 0 or 1.
        weights: float32[B]; rows of weight 0 take no part.
        query: int64[B], equal for the rows of a query, in any order.

    Returns:
        float32[], differentiable with respect to ``logits``.
    """
    size = logits.shape[0]
    order = tf.argsort(query, stable=True)
    query = tf.gather(query, order)
    first = tf.concat([[False], query[1:] != query[:-1]], axis=0)
    segment = tf.cumsum(tf.cast(first, tf.int32))
    label, weight = tf.gather(labels, order), tf.gather(weights, order)

    def per_row(values: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.math.unsorted_segment_sum(values, segment, size), segment)

    clicked, missed = per_row(weight * label), per_row(weight * (1.0 - label))
    mixed = clicked * missed > 0.0
    scale = tf.where(mixed, (clicked + missed) / tf.where(mixed, clicked * missed, 1.0), 0.0)
    row = tf.range(size)
    starts = tf.gather(tf.math.unsorted_segment_min(row, segment, size), segment)
    # How many tiles back the farthest partner of a row may stand.
    reach = tf.reduce_max(tf.where(mixed, row // TILE - starts // TILE, -1))

    @tf.custom_gradient
    def total(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        loss, slope = _sum_band(tf.gather(values, order), label, weight, scale, segment, reach)
        back = tf.scatter_nd(order[:, None], slope, [size])
        return loss, lambda upstream: upstream * back

    return total(logits)


def _sum_band(
    logit: tf.Tensor,
    label: tf.Tensor,
    weight: tf.Tensor,
    scale: tf.Tensor,
    segment: tf.Tensor,
    reach: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the loss float32[] and its gradient float32[B]; rows are sorted by query."""
    size = logit.shape[0]
    n = -(-size // TILE)
    pad = [[0, n * TILE - size]]
    tiled = [n, TILE]
    score = tf.reshape(tf.pad(logit, pad), tiled)
    y = tf.reshape(tf.pad(label, pad), tiled)
    w = tf.reshape(tf.pad(weight, pad), tiled)
    q = tf.reshape(tf.pad(segment, pad, constant_values=-1), tiled)
    # The weight of a row as the left one of a pair; the scale is that of the whole query.
    left = w * tf.reshape(tf.pad(scale, pad), tiled)
    tile = tf.range(n)

    def step(back: tf.Tensor, loss: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def partner(x: tf.Tensor) -> tf.Tensor:
            return tf.roll(x, back, axis=0)[:, None, :]

        side = y[:, :, None] - partner(y)
        real = (q[:, :, None] == partner(q)) & (tile >= back)[:, None, None]
        pair = tf.where(real, left[:, :, None] * partner(w), 0.0) * tf.abs(side)
        # On the diagonal every pair is met from both of its ends.
        pair *= tf.where(back == 0, 0.5, 1.0)
        ahead = side * (score[:, :, None] - partner(score))
        small = tf.exp(-tf.abs(ahead))
        loss += tf.reduce_sum(pair * (tf.maximum(-ahead, 0.0) + tf.math.log1p(small)))
        wrong = tf.where(ahead > 0.0, small, 1.0) / (1.0 + small)
        force = pair * wrong * side
        slope -= tf.reduce_sum(force, axis=2)
        slope += tf.roll(tf.reduce_sum(force, axis=1), -back, axis=0)
        return back + 1, loss, slope

    _, loss, slope = tf.while_loop(
        lambda back, *_: back <= reach, step, (0, 0.0, tf.zeros(tiled)), parallel_iterations=1
    )
    return loss, tf.reshape(slope, [-1])[:size]
