"""Dense layers shared by the deep models, with seeds that follow from one number."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from ctr.api import DenseLayer, Features
from ctr.encoding import Layout
from ctr.errors import ConfigError
from ctr.models.activations import activation

Dense = tf_keras.layers.Dense


def saves(n_inputs: int, n_outputs: int, rank: int) -> bool:
    """True if a bottleneck makes a layer cheaper.

    A full layer takes ``m * n`` multiplications per example, one of rank k takes ``k * (m + n)``,
    so it saves where ``k < m * n / (m + n)``: below half of the width of a square layer.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.1.
    """
    return rank * (n_inputs + n_outputs) < n_inputs * n_outputs


def tower_macs(n_inputs: int, units: Sequence[int], ranks: Sequence[int]) -> int:
    """Returns the multiply-adds per example of the layers that :func:`tower` makes."""
    widths = (n_inputs, *units)
    return sum(
        rank * (m + n) if rank > 0 and saves(m, n, rank) else m * n
        for m, n, rank in zip(widths, units, ranks or [0] * len(units), strict=False)
    )


def tower(
    n_inputs: int,
    units: Sequence[int],
    activation_name: str,
    beta: float,
    ranks: Sequence[int],
    seed: int,
) -> list[tf_keras.layers.Dense]:
    """Returns hidden layers with He-normal kernels, seeded ``seed, seed + 1, ...``.

    A layer of rank k is two: a thin one without bias or activation, then the layer proper. Their
    kernels are drawn so that the product has the variance of the full one: ``Var(U) = 1 / m`` and
    ``Var(V) = 2 / k``.

    Args:
        n_inputs: Numbers per example that the first layer reads.
        units: Units of each hidden layer.
        activation_name: Activation of all of them.
        beta: Width of its bend.
        ranks: One per layer, or empty; a rank that saves nothing leaves its layer whole.
        seed: Decides the kernels.

    Raises:
        ConfigError: there are ranks, and none saves anything.
    """
    widths = (n_inputs, *units)
    low = [
        rank > 0 and saves(m, n, rank)
        for m, n, rank in zip(widths, units, ranks or [0] * len(units), strict=False)
    ]
    if any(ranks) and not any(low):
        raise ConfigError(
            f"ranks {tuple(ranks)} save nothing in layers of {' -> '.join(map(str, widths))}: a "
            "rank must be below m * n / (m + n). Lower them, or widen the layers."
        )
    act = activation(activation_name, beta)
    layers = []
    for i, n in enumerate(units):
        if low[i]:
            thin = tf_keras.initializers.LecunNormal(seed + 250 + i)
            layers.append(Dense(ranks[i], use_bias=False, kernel_initializer=thin))
        kernel = tf_keras.initializers.HeNormal(seed + i)
        layers.append(Dense(n, act, kernel_initializer=kernel))
    return layers


def zero_head(n_tasks: int) -> tf_keras.layers.Dense:
    """Returns the output layer, starting at 0: the deep part begins by agreeing with the wide."""
    return Dense(n_tasks, use_bias=False, kernel_initializer="zeros")


def flat_inputs(features: Features) -> tf.Tensor:
    """Returns embeddings and numerics side by side, float32[B, F * D + M'].

    Numerics are padded with zeros to M', a whole number of embeddings: rows then start at even
    addresses, and looked-up rows are copied as vectors and not float by float (measured: 6 % of
    a step). The weights of padding have no gradient and stay as they are.
    """
    vectors = features.vectors
    dim = vectors.shape[2]
    n_numeric = features.numeric.shape[1]
    if not n_numeric:
        return tf.reshape(vectors, [-1, vectors.shape[1] * dim])
    n_rows = -(-n_numeric // dim)
    padded = tf.pad(features.numeric, [[0, 0], [0, n_rows * dim - n_numeric]])
    joined = tf.concat([vectors, tf.reshape(padded, [-1, n_rows, dim])], axis=1)
    return tf.reshape(joined, [-1, joined.shape[1] * dim])


def flat_width(layout: Layout, dim: int) -> int:
    """Returns the width of :func:`flat_inputs`."""
    return (layout.n_features + -(-len(layout.numeric) // dim)) * dim


def run(
    layers: Sequence[tf_keras.layers.Dense], x: tf.Tensor
) -> tuple[tf.Tensor, tuple[DenseLayer, ...]]:
    """Applies dense layers in order.

    Returns:
        The last layer's output, and what each layer did.
    """
    done = []
    for layer in layers:
        if not layer.built:
            layer.build(x.shape)
        z = tf.matmul(x, layer.kernel)
        if layer.use_bias:
            z = tf.nn.bias_add(z, layer.bias)
        bias = layer.bias if layer.use_bias else None
        done.append(DenseLayer(layer.kernel, bias, layer.activation, x, z))
        x = layer.activation(z)
    return x, tuple(done)


def run_head(
    layer: tf_keras.layers.Dense, x: tf.Tensor
) -> tuple[tf.Tensor, tuple[DenseLayer, ...]]:
    """Applies an output layer; its numbers are logits, or addends of logits."""
    logits, (done,) = run([layer], x)
    return logits, (done._replace(activation=tf.sigmoid),)
