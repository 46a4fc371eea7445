"""Dense layers shared by the deep models, with seeds that follow from one number."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from ctr.api import Features

ACTIVATIONS = ("relu", "swish", "gelu", "tanh", "softplus")


def mlp(units: Sequence[int], activation: str, seed: int) -> list[tf_keras.layers.Dense]:
    """Returns hidden layers with He-normal kernels, seeded ``seed, seed + 1, ...``."""
    return [
        tf_keras.layers.Dense(
            n, activation, kernel_initializer=tf_keras.initializers.HeNormal(seed + i)
        )
        for i, n in enumerate(units)
    ]


def zero_head(n_tasks: int) -> tf_keras.layers.Dense:
    """Returns the output layer, starting at 0: the deep part begins by agreeing with the wide."""
    return tf_keras.layers.Dense(n_tasks, use_bias=False, kernel_initializer="zeros")


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


def run(layers: Sequence[tf_keras.layers.Layer], x: tf.Tensor) -> tf.Tensor:
    """Applies layers in order."""
    for layer in layers:
        x = layer(x)
    return x
