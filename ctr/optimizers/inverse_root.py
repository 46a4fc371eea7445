"""Inverse fourth roots of positive semidefinite matrices, in float64 on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

#: A root whose residual is larger is not used.
MAX_RESIDUAL = 0.1


class Roots(NamedTuple):
    """``roots`` float64[N, b, b], and which of them may be used, ``accepted`` bool[N]."""

    roots: NDArray[np.float64]
    accepted: NDArray[np.bool_]


def inverse_fourth_roots(matrices: NDArray[np.float64], ridge: float) -> Roots:
    """Computes ``(A + ridge * lambda_max(A) * I) ** (-1/4)`` for each matrix A.

    Equal inputs give equal bits, whatever the number of threads: each decomposition runs on one.
    (LAPACK as NumPy ships it is slower here, and may split a small product over threads.)

    Args:
        matrices: float64[N, b, b], symmetric.
        ridge: Shift of the eigenvalues, relative to the largest one.

    Returns:
        The roots; one is not accepted if its matrix is 0 or not finite, or if it does not
        reproduce the identity to :data:`MAX_RESIDUAL`.
    """
    size = matrices.shape[-1]
    usable = np.isfinite(matrices).all(axis=(1, 2)) & (np.abs(matrices).max(axis=(1, 2)) > 0.0)
    matrices = np.where(usable[:, None, None], matrices, np.eye(size))
    # Roots of numbers near the ends of the range would leave it; a scale of 1 is far from both.
    scale = np.abs(matrices).max(axis=(1, 2))
    matrices = matrices / scale[:, None, None]
    with tf.device("CPU"):
        try:
            found, residual = (part.numpy() for part in _roots(tf.constant(matrices), ridge))
        except tf.errors.OpError:
            return Roots(np.zeros_like(matrices), np.zeros(len(matrices), bool))
    accepted = usable & np.isfinite(found).all(axis=(1, 2)) & (residual < MAX_RESIDUAL)
    return Roots(found * (scale**-0.25)[:, None, None], accepted)


def _roots(matrices: tf.Tensor, ridge: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the roots, float64[N, b, b], and how far each is from being one, float64[N]."""
    values, vectors = tf.linalg.eigh(matrices)
    values = tf.maximum(values, 0.0)
    shift = ridge * values[:, -1:]
    roots = tf.matmul(vectors * ((values + shift) ** -0.25)[:, None, :], vectors, transpose_b=True)
    identity = tf.eye(matrices.shape[-1], dtype=matrices.dtype)
    squared = roots @ roots
    product = squared @ (matrices + shift[:, :, None] * identity) @ squared
    return roots, tf.reduce_max(tf.abs(product - identity), axis=[1, 2])
