"""Transfer functions with their convex potentials, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.models.activations import LEAK

Array = NDArray[np.float64]

#: Outputs of bounded functions are kept this far from their bounds.
_EDGE = 1e-6
#: Least curvature, for saturated units.
_FLOOR = 1e-6


@dataclass(frozen=True)
class Transfer:
    """A monotone function ``f``, the gradient of a convex ``F``; rows are examples.

    Attributes:
        name: Short name.
        f: Activations float64[n, d] of pre-activations.
        inverse: The other way round; bounded outputs are clamped first.
        potential: ``F`` float64[n], summed over the layer.
        conjugate: ``F*`` float64[n] of activations.
        slope: ``f'`` float64[n, d]; for softmax the probabilities, see :meth:`metric`.
        simplex: True if outputs sum to 1, so that adding a constant to ``a`` changes nothing.
    """

    name: str
    f: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    potential: Callable[[Array], Array]
    conjugate: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    simplex: bool = False

    def divergence(self, a: Array, x: Array) -> Array:
        """Returns ``D_F(a, f*(x)) = F(a) + F*(x) - a . x``, float64[n].

        The Fenchel-Young form needs no inverse, and so holds for functions that are not strictly
        monotone. Prediction first, label second; the order matters.
        """
        return self.potential(a) + self.conjugate(x) - (a * x).sum(axis=1)

    def metric(self, m: Array) -> Array:
        """Returns the Hessian of F at ``m`` float64[d], float64[d, d]."""
        slope = self.slope(m[None])[0]
        if self.simplex:
            return np.diag(slope) - np.outer(slope, slope)
        return np.diag(np.maximum(slope, _FLOOR))

    def curvatures(self, a: Array, v: Array) -> Array:
        """Returns ``V' H(a) V`` of every row, float64[n, k, k], for ``v`` float64[d, k]."""
        slope = np.maximum(self.slope(a), _FLOOR)
        full = np.einsum("dk,nd,dl->nkl", v, slope, v, optimize=True)
        if self.simplex:
            seen = slope @ v
            full -= seen[:, :, None] * seen[:, None, :]
        return full


def _leaky(a: Array) -> Array:
    return np.where(a > 0, a, LEAK * a)


def _unleaky(x: Array) -> Array:
    return np.where(x > 0, x, x / LEAK)


def _sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def _clamped(x: Array) -> Array:
    return np.clip(x, _EDGE, 1 - _EDGE)


def _entropy(x: Array) -> Array:
    x = _clamped(x)
    return (x * np.log(x) + (1 - x) * np.log1p(-x)).sum(axis=1)


def _softmax(a: Array) -> Array:
    grown = np.exp(a - a.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def _simplex(x: Array) -> Array:
    x = np.maximum(x, _EDGE)
    return x / x.sum(axis=1, keepdims=True)


def _log_centred(x: Array) -> Array:
    log = np.log(_simplex(x))
    return log - log.mean(axis=1, keepdims=True)


def _log_sum_exp(a: Array) -> Array:
    top = a.max(axis=1)
    return top + np.log(np.exp(a - top[:, None]).sum(axis=1))


def _inner_tanh(x: Array) -> Array:
    return np.clip(x, _EDGE - 1, 1 - _EDGE)


TRANSFERS = {
    t.name: t
    for t in (
        Transfer(
            "identity", lambda a: a, lambda x: x, lambda a: 0.5 * (a * a).sum(axis=1),
            lambda x: 0.5 * (x * x).sum(axis=1), np.ones_like,
        ),
        Transfer(
            "leaky_relu", _leaky, _unleaky, lambda a: 0.5 * (a * _leaky(a)).sum(axis=1),
            lambda x: 0.5 * (x * _unleaky(x)).sum(axis=1), lambda a: np.where(a > 0, 1.0, LEAK),
        ),
        Transfer(
            "tanh", np.tanh, lambda x: np.arctanh(_inner_tanh(x)),
            lambda a: (np.logaddexp(a, -a) - np.log(2)).sum(axis=1),
            # The entropy of (1 + x) / 2, but for a constant, is log cosh's conjugate.
            lambda x: _entropy((1 + _inner_tanh(x)) / 2) + x.shape[1] * np.log(2),
            lambda a: 1 - np.tanh(a) ** 2,
        ),
        Transfer(
            "sigmoid", _sigmoid, lambda x: np.log(_clamped(x)) - np.log1p(-_clamped(x)),
            lambda a: np.logaddexp(0, a).sum(axis=1), _entropy,
            lambda a: _sigmoid(a) * _sigmoid(-a),
        ),
        Transfer(
            "softmax", _softmax, _log_centred, _log_sum_exp,
            lambda x: (_simplex(x) * np.log(_simplex(x))).sum(axis=1), _softmax, simplex=True,
        ),
    )
}  # fmt: skip
