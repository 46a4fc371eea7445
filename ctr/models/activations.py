"""Activations of hidden layers: ReLU and its smooth relatives, by name.

A jump of the slope, as ReLU has one at 0, gives the loss many nearby optima, and two trainings
end in different ones; smooth activations trade a little of ReLU's sharpness for predictions that
differ less between retrainings.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ctr.errors import ConfigError, nearest

#: Slope of leaky_relu below 0.
LEAK = 0.1
#: ``f(z)`` for a layer's pre-activations z.
Activation = Callable[[tf.Tensor], tf.Tensor]


def smelu(z: tf.Tensor, beta: float) -> tf.Tensor:
    """SmeLU: 0 up to ``-beta``, ``(z + beta)**2 / (4 * beta)`` to ``beta``, z beyond.

    It is ReLU averaged over a uniform shift of up to ``beta``. Written without branches: both
    tails are exact, and the slope, ``clip((z + beta) / (2 * beta), 0, 1)``, is right at the joints
    too.

    Paper: Shamir, Lin, Coviello 2020, "Smooth activations and reproducibility in deep networks"
    (arXiv:2010.09931); "On the Factory Floor" (arXiv:2209.05310), section 5.
    Reduces to: ReLU as ``beta`` goes to 0.
    """
    bend = tf.clip_by_value(z + beta, 0.0, 2.0 * beta)
    return bend * bend * (0.25 / beta) + tf.nn.relu(z - beta)


def softplus(z: tf.Tensor, beta: float) -> tf.Tensor:
    """``beta * log(1 + exp(z / beta))``; ReLU as ``beta`` goes to 0."""
    return beta * tf.nn.softplus(z / beta)


def swish(z: tf.Tensor, beta: float) -> tf.Tensor:
    """``z * sigmoid(z / beta)``; ReLU as ``beta`` goes to 0."""
    return z * tf.sigmoid(z / beta)


def gelu(z: tf.Tensor, beta: float) -> tf.Tensor:
    """``z * Phi(z / beta)``, Phi the normal distribution; ReLU as ``beta`` goes to 0."""
    return beta * tf.nn.gelu(z / beta)


def _leaky_relu(z: tf.Tensor) -> tf.Tensor:
    """Slope 1 above 0 and ``LEAK`` below: strictly monotone, so that it has an inverse."""
    return tf.nn.leaky_relu(z, LEAK)


#: Activations whose bend is ``beta`` wide.
SMOOTH = {"smelu": smelu, "softplus": softplus, "swish": swish, "gelu": gelu}
#: Activations without a parameter.
PLAIN = {"relu": tf.nn.relu, "tanh": tf.tanh, "leaky_relu": _leaky_relu}
#: All names.
ACTIVATIONS = (*PLAIN, *SMOOTH)


def check_activation(name: str, beta: float) -> None:
    """Refuses what :func:`activation` cannot build.

    Raises:
        ConfigError: the name is not known, or ``beta`` is not positive.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"no activation {name!r}: {nearest(name, ACTIVATIONS)}")
    if not beta > 0.0:
        raise ConfigError(
            f"activation {name}: beta, the width of its bend, must be above 0, received {beta}. "
            "For no bend at all use relu."
        )


def activation(name: str, beta: float) -> Activation:
    """Returns an activation by name; ``beta`` is the width of the bend of the smooth ones.

    Raises:
        ConfigError: the name is not known, or ``beta`` is not positive.
    """
    check_activation(name, beta)
    if name in PLAIN:
        return PLAIN[name]
    smooth = SMOOTH[name]
    return lambda z: smooth(z, beta)
