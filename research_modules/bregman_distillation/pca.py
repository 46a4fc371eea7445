"""Bregman PCA: principal directions of a layer's outputs in the geometry of its transfer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ctr.errors import ConfigError
from research_modules.bregman_distillation.geometry import Array, Transfer

#: Added to every small system that is solved.
_JITTER = 1e-6
#: Halvings of a step before it is given up.
_HALVINGS = 12


@dataclass(frozen=True)
class BregmanPca:
    """The fixed layer ``x = f(c V' + m)`` and what it was fitted to.

    Attributes:
        transfer: The layer's transfer function.
        mean: float64[d], ``f*`` of the mean output; not the mean pre-activation.
        components: float64[d, k], with ``V' H V = I`` at the mean, strongest first.
        coefficients: float64[n, k] of the fitted outputs.
        losses: Mean divergence before the first and after every sweep.
        without: Mean divergence of the mean alone, k = 0.
    """

    transfer: Transfer
    mean: Array
    components: Array
    coefficients: Array
    losses: tuple[float, ...]
    without: float

    def pre_activations(self, coefficients: Array) -> Array:
        """Returns ``c V' + m``, float64[n, d], for float64[n, k]."""
        return coefficients @ self.components.T + self.mean

    def reconstruct(self, coefficients: Array) -> Array:
        """Returns the layer's outputs float64[n, d] for coefficients float64[n, k]."""
        return self.transfer.f(self.pre_activations(coefficients))

    def solve(self, x: Array, steps: int = 25) -> Array:
        """Returns the best coefficients float64[n, k] of outputs ``x`` float64[n, d]."""
        start = np.zeros((len(x), self.components.shape[1]))
        return _newton(self.transfer, x, self.components, self.mean, start, steps)

    def loss(self, x: Array, coefficients: Array) -> float:
        """Returns the mean divergence of the reconstruction."""
        return _mean_loss(self.transfer, self.pre_activations(coefficients), x)

    def carried_over(self, old_mean: Array, old_components: Array) -> tuple[Array, Array]:
        """Returns ``T, t`` such that ``T c + t`` are these coordinates of old coefficients c.

        The nearest point in the metric at the mean; exact where both span the same space.
        """
        projection = self.components.T @ self.transfer.metric(self.mean)
        return projection @ old_components, projection @ (old_mean - self.mean)


def fit(
    x: Array, k: int, transfer: Transfer, sweeps: int = 60, start: Array | None = None
) -> BregmanPca:
    """Fits mean and principal directions to a layer's outputs.

    Alternates Newton steps on the coefficients, one step on the components with backtracking, and
    the retraction to ``V' H V = I``. The objective never rises.

    Paper: Amid, Anil, Fifty, Warmuth 2022, "Layerwise Bregman representation learning of neural
    networks with applications to knowledge distillation" (arXiv:2209.07080), section 3.

    Args:
        x: float64[n, d], outputs of the layer.
        k: Directions, at most d (d - 1 for softmax).
        transfer: The layer's transfer function.
        sweeps: Most alternations; it stops where a sweep gains less than one part in 1e7.
        start: float64[d, k], components to begin with; those of ordinary PCA if None.

    Raises:
        ConfigError: k is out of its range.
    """
    d = x.shape[1]
    most = d - transfer.simplex
    if not 1 <= k <= most:
        raise ConfigError(f"Bregman PCA of {d} outputs: k must be 1 to {most}, received {k}.")
    mean = transfer.inverse(x.mean(axis=0, keepdims=True))[0]
    metric = transfer.metric(mean)
    v = _principal(transfer.inverse(x) - mean, metric, k) if start is None else start
    inverse_metric: Any = np.linalg.pinv(metric, rcond=1e-9, hermitian=True)
    v = _on_simplex(v, transfer)
    v, c = _retract(v, np.zeros((len(x), k)), metric)
    losses = [_mean_loss(transfer, c @ v.T + mean, x)]
    without = losses[0]
    for sweep in range(sweeps):
        c = _newton(transfer, x, v, mean, c, 12 if sweep == 0 else 3)
        v = _component_step(transfer, x, v, mean, c, inverse_metric)
        v, c = _retract(v, c, metric)
        losses.append(_mean_loss(transfer, c @ v.T + mean, x))
        if sweep > 0 and losses[-2] - losses[-1] < 1e-7 * without:
            break
    fitted = BregmanPca(transfer, mean, v, c, tuple(losses), without)
    return _canonical(fitted)


def _mean_loss(transfer: Transfer, a: Array, x: Array) -> float:
    return float(transfer.divergence(a, x).mean())


def _principal(deviations: Array, metric: Array, k: int) -> Array:
    """Returns ordinary PCA's directions in the metric, float64[d, k]."""
    values, vectors = np.linalg.eigh(metric)
    kept = values > 1e-9 * values.max()
    root = np.sqrt(values[kept])
    scaled = deviations @ vectors[:, kept] * root
    _, directions = np.linalg.eigh(scaled.T @ scaled)
    top = directions[:, ::-1][:, :k]
    return vectors[:, kept] @ (top / root[:, None])


def _on_simplex(v: Array, transfer: Transfer) -> Array:
    """Takes out what moves all logits alike, which softmax does not see."""
    return v - v.mean(axis=0) if transfer.simplex else v


def _retract(v: Array, c: Array, metric: Array) -> tuple[Array, Array]:
    """Returns components with ``V' H V = I`` and coefficients with the same products ``c V'``."""
    gram = v.T @ metric @ v
    upper = np.linalg.cholesky(gram + 1e-12 * np.trace(gram) * np.eye(len(gram))).T
    flat: Any = np.linalg.solve(upper.T, v.T).T
    return flat, c @ upper.T


def _newton(transfer: Transfer, x: Array, v: Array, mean: Array, c: Array, steps: int) -> Array:
    """Improves the coefficients of every row; a row's loss never rises."""
    k = v.shape[1]
    loss = transfer.divergence(c @ v.T + mean, x)
    for _ in range(steps):
        a = c @ v.T + mean
        slope = (transfer.f(a) - x) @ v
        curvature = transfer.curvatures(a, v) + _JITTER * np.eye(k)
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        left = np.ones(len(c), bool)
        size = 1.0
        for _ in range(_HALVINGS):
            tried = c[left] - size * step[left]
            value = transfer.divergence(tried @ v.T + mean, x[left])
            better = value <= loss[left]
            rows = np.flatnonzero(left)[better]
            c = c.copy()
            c[rows], loss[rows] = tried[better], value[better]
            left[rows] = False
            size *= 0.5
            if not left.any():
                break
    return c


def _component_step(
    transfer: Transfer, x: Array, v: Array, mean: Array, c: Array, inverse_metric: Array
) -> Array:
    """Returns the components after one step that does not raise the loss."""
    n, k = c.shape
    a = c @ v.T + mean
    before = _mean_loss(transfer, a, x)
    slope = (transfer.f(a) - x).T @ c / n
    # Scaled by the metric and by the spread of the coefficients; for the identity, one full step
    # is least squares.
    spread = c.T @ c / n + _JITTER * np.eye(k)
    step = _on_simplex(np.linalg.solve(spread, (inverse_metric @ slope).T).T, transfer)
    decrease = float((slope * step).sum())
    size = 1.0
    for _ in range(_HALVINGS):
        tried = v - size * step
        if _mean_loss(transfer, c @ tried.T + mean, x) <= before - 1e-4 * size * decrease:
            return tried
        size *= 0.5
    return v


def _canonical(fitted: BregmanPca) -> BregmanPca:
    """Rotates to uncorrelated coefficients, strongest first, and fixes the signs."""
    c, v = fitted.coefficients, fitted.components
    values, rotation = np.linalg.eigh(c.T @ c / len(c))
    rotation = rotation[:, np.argsort(-values)]
    turned = v @ rotation
    largest = np.abs(turned).argmax(axis=0)
    signs = np.where(turned[largest, np.arange(turned.shape[1])] < 0, -1.0, 1.0)
    return replace(fitted, components=turned * signs, coefficients=c @ rotation * signs)
