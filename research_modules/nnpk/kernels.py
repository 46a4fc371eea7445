"""The prior kernel in closed form, and what kernels say about labels and trained layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from research_modules.nnpk.prior import VARIANCE, Prior

Matrix = NDArray[np.float64]


def prior_kernel(prior: Prior, x: Matrix, y: Matrix) -> Matrix:
    """Returns ``K(x, y) = E[f(x) f(y)]`` of infinitely wide networks, float64[n, m].

    With one hidden layer it holds at every width; with more, the diagonal of ReLU networks does,
    and the rest is off by about 1 / width.

    Paper: arXiv:2202.06438, section 2; the arc-cosine form is Cho and Saul's (2009).

    Args:
        prior: Depth, activation and biases.
        x: float64[n, d].
        y: float64[m, d].
    """
    d = x.shape[1]
    cross, own_x, own_y = x @ y.T / d, (x**2).mean(axis=1), (y**2).mean(axis=1)
    for _ in range(prior.depth):
        gain, shift = VARIANCE[prior.activation], prior.bias_std**2
        cross, own_x, own_y = (gain * k + shift for k in (cross, own_x, own_y))
        grown = _expected_product(prior.activation, cross, own_x[:, None], own_y[None, :])
        own_x = _expected_product(prior.activation, own_x, own_x, own_x)
        own_y = _expected_product(prior.activation, own_y, own_y, own_y)
        cross = grown
    return cross


def _expected_product(activation: str, q: Matrix, qx: Matrix, qy: Matrix) -> Matrix:
    """Returns ``E[act(u) act(v)]``, u and v normal with variances qx and qy, covariance q."""
    if activation == "linear":
        return q
    if activation == "erf":
        ratio = 2 * q / np.sqrt((1 + 2 * qx) * (1 + 2 * qy))
        return 2 / np.pi * np.arcsin(np.clip(ratio, -1, 1))
    scale = np.sqrt(qx * qy)
    cos = np.clip(q / np.where(scale > 0, scale, 1.0), -1, 1)
    angle = np.arccos(cos)
    return scale * (np.sin(angle) + (np.pi - angle) * cos) / (2 * np.pi)


def centred(kernel: Matrix) -> Matrix:
    """Returns the kernel of centred features."""
    rows = kernel - kernel.mean(axis=0, keepdims=True)
    return rows - rows.mean(axis=1, keepdims=True)


def alignment(first: Matrix, second: Matrix) -> float:
    """Returns the centred kernel alignment (CKA) of two kernels of one sample, 0 to 1."""
    a, b = centred(first), centred(second)
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def effective_rank(kernel: Matrix) -> float:
    """Returns ``tr(K)**2 / |K|_F**2`` of the centred kernel: how many directions it has."""
    k = centred(kernel)
    return float(np.trace(k) ** 2 / (k**2).sum())


def kernel_ridge(kernel: Matrix, targets: Matrix, against: Matrix, ridge: float) -> Matrix:
    """Solves kernel ridge regression in closed form.

    Args:
        kernel: float64[n, n] of the training rows.
        targets: float64[n, t].
        against: float64[m, n], kernel of other rows with the training rows.
        ridge: Regularisation as a share of the mean diagonal.

    Returns:
        float64[m, t], predictions for the other rows.
    """
    n = len(kernel)
    jitter = ridge * np.trace(kernel) / n
    weights: Matrix = np.linalg.solve(kernel + jitter * np.eye(n), targets)
    return against @ weights
