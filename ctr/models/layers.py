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
    """Returns embeddings and numerics side by side, float32[B, F * D + M]."""
    vectors = features.vectors
    flat = tf.reshape(vectors, [-1, vectors.shape[1] * vectors.shape[2]])
    return tf.concat([flat, features.numeric], axis=1)


def run(layers: Sequence[tf_keras.layers.Layer], x: tf.Tensor) -> tf.Tensor:
    """Applies layers in order."""
    for layer in layers:
        x = layer(x)
    return x
