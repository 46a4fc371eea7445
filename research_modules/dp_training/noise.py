"""Noise: independent from release to release, or correlated so that it cancels in sums."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

MECHANISMS = ("independent", "sqrt_toeplitz")


def normal(size: int, key: tf.Tensor) -> tf.Tensor:
    """Returns standard normal numbers float32[size] that follow from ``key`` int64[2] alone."""
    # What TensorFlow chooses by itself costs 20 times as much where it is compiled for a CPU.
    return tf.random.stateless_normal([size], key, alg="philox")


def root_coefficients(n: int) -> NDArray[np.float64]:
    """Returns the first column of the square root of the prefix-sum matrix: 1, 1/2, 3/8, 5/16...

    Paper: Henzinger, Fichtenberger, Upadhyay 2022 (arXiv:2202.11205), ``C^2 = A``.
    """
    k = np.arange(1, n)
    return np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])


def mixing(n_kept: int) -> NDArray[np.float64]:
    """Returns what the noise of a release is made of: weights of the newest ``n_kept`` draws.

    The first column of the inverse of the square root, cut off: 1, -1/2, -1/8, -1/16, ...
    """
    root = root_coefficients(n_kept)
    return np.diff(root, prepend=0.0)


def sensitivity(weights: NDArray[np.float64], n_releases: int) -> float:
    """Returns the factor by which each draw has to be larger than independent noise.

    Released is ``C^-1 (C g + z)`` with the given first column of ``C^-1``; one example changes one
    row of g, so the sensitivity is the norm of the first column of ``C``.

    Args:
        weights: As :func:`mixing` returns them.
        n_releases: Most releases of a run.
    """
    column = np.zeros(n_releases)
    column[0] = 1.0
    for n in range(1, n_releases):
        back = weights[1 : n + 1]
        column[n] = -np.dot(back, column[n - len(back) : n][::-1])
    return float(np.linalg.norm(column))


class NoiseState(tf.Module):
    """Draws noise of a given size; all that is random follows from the seed and the release.

    Args:
        size: Numbers of one release.
        weights: Mixing weights; ``[1.0]`` for independent noise.
        scale: Standard deviation of a draw; 0 draws nothing.
        seed: Decides all draws.
    """

    def __init__(self, size: int, weights: NDArray[np.float64], scale: float, seed: int) -> None:
        super().__init__(name="noise")
        self._size, self._weights = size, weights.astype(np.float32)
        self._scale, self._seed = scale, seed
        kept = len(weights) - 1 if scale else 0
        self.past = (
            [tf.Variable(tf.zeros([kept, size]), trainable=False, name="past")] if kept else []
        )

    def draw(self, release: tf.Tensor) -> tf.Tensor:
        """Returns the noise float32[size] of one release, int64 scalar; to be called in order."""
        if not self._scale:
            return tf.zeros([self._size])
        key = tf.stack([tf.constant(self._seed, tf.int64), release])
        fresh = self._scale * normal(self._size, key)
        if not self.past:
            return fresh
        (past,) = self.past
        kept = past.shape[0]
        # Slot s holds the draw of the newest release before this one with number s modulo kept.
        age = tf.math.floormod(release - 1 - tf.range(kept, dtype=tf.int64), kept) + 1
        weights = tf.gather(tf.constant(self._weights), age)
        mixed = self._weights[0] * fresh + tf.linalg.matvec(past, weights, transpose_a=True)
        slot = tf.math.floormod(release, kept)
        past.scatter_update(tf.IndexedSlices(fresh[None], slot[None]))
        return mixed

    def variance(self) -> float:
        """Returns the variance of a number, once enough releases have passed."""
        return float(self._scale**2 * np.sum(self._weights.astype(float) ** 2))
