"""Codes of vectors, pairs of codes, and the rows that pairs are kept in."""

from __future__ import annotations

import itertools

import tensorflow as tf


def nearest_codes(heads: tf.Tensor, centroids: tf.Tensor) -> tf.Tensor:
    """Returns the number of the nearest centroid, int32[n, N].

    Args:
        heads: float32[n, N, H], the vector of each token cut into N parts.
        centroids: float32[N, K, H].
    """
    # The vector's own square is the same for all of its centroids.
    products = tf.einsum("nhd,hkd->nhk", heads, centroids)
    distance = tf.reduce_sum(centroids * centroids, axis=2)[None] - 2.0 * products
    return tf.argmin(distance, axis=2, output_type=tf.int32)


def moved_centroids(
    centroids: tf.Tensor, heads: tf.Tensor, codes: tf.Tensor, counted: tf.Tensor, decay: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the centroids a step closer to the mean of what they stand for.

    ``c <- decay * c + (1 - decay) * sum / (n + 1e-6)``: one of which no token is near shrinks.

    Args:
        centroids: float32[N, K, H].
        heads: float32[n, N, H].
        codes: int32[n, N], of ``heads``.
        counted: float32[n], 0 for tokens that do not count.
        decay: Share that is kept.

    Returns:
        The new centroids, and the tokens float32[N, K] of each.
    """
    one_hot = tf.one_hot(codes, centroids.shape[1]) * counted[:, None, None]
    used = tf.reduce_sum(one_hot, axis=0)
    sums = tf.einsum("nhk,nhd->hkd", one_hot, heads)
    moved = decay * centroids + (1.0 - decay) * sums / (used + 1e-6)[..., None]
    return moved, used


def pair_ids(codes: tf.Tensor, n_codes: int, follows: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the id ``z_t + K * z_(t-1)`` of every pair, int64[B, L, N].

    A token without predecessor counts as one that follows code 0.

    Args:
        codes: int64[B, L, N].
        n_codes: K, above every code; ids reach K squared, hence int64.
        follows: bool[B, L], False where the token before belongs to something else.
    """
    codes = tf.cast(codes, tf.int64)
    before = tf.pad(codes[:, :-1], [[0, 0], [1, 0], [0, 0]])
    if follows is not None:
        before *= tf.cast(follows, tf.int64)[..., None]
    return codes + tf.constant(n_codes, tf.int64) * before


def hash_primes(n_heads: int, n_rows: int) -> tuple[int, ...]:
    """Returns the first primes above ``n_rows``, one per head; Bertrand puts them below 2 M."""
    found = (n for n in itertools.count(n_rows + 1) if _is_prime(n))
    return tuple(itertools.islice(found, n_heads))


def pair_rows(pairs: tf.Tensor, n_rows: int) -> tf.Tensor:
    """Returns ``(((h + 1) g + (h + 1)) mod p_h) mod M``, int64[..., N].

    Heads scatter pairs differently, so that two pairs seldom collide in all of them.

    Args:
        pairs: int64[..., N], ids of pairs.
        n_rows: Rows of one head, M.
    """
    n_heads = pairs.shape[-1]
    head = tf.range(1, n_heads + 1, dtype=tf.int64)
    primes = tf.constant(hash_primes(n_heads, n_rows), tf.int64)
    return tf.math.floormod(tf.math.floormod(pairs * head + head, primes), n_rows)


def layer_norm(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Normalises the last axis to mean 0 and variance 1, then ``x * (1 + scale) + shift``."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axis=-1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-6) * (1.0 + scale) + shift


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))
