"""Scikit-learn's digits and a plain dense network, for studies that no click stream can show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.api import DenseLayer
from ctr.models.activations import PLAIN, Activation

#: Activations of a layer by name.
LAYERS: dict[str, Activation] = {**PLAIN, "sigmoid": tf.sigmoid, "identity": tf.identity}


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Returns 1,797 images as float32[n, 64] in [0, 1] and their digits, int32[n], shuffled.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError:
        from ctr.errors import ConfigError

        raise ConfigError(
            "the digits come with scikit-learn: pip install 'online-ctr[bench]'."
        ) from None
    images, digits = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    return (images[order] / 16.0).astype(np.float32), digits[order].astype(np.int32)


class DenseNet(tf.Module):
    """Dense layers one after another.

    Args:
        widths: Numbers per example: of the input, then of every layer's output.
        activations: One name of ``LAYERS`` per layer. The last one only says what the network's
            output is to be put through: the loss does it.
        seed: Decides the kernels.
        init: ``he`` (normal, zero biases) or ``glorot`` (uniform, biases as well).
    """

    def __init__(
        self, widths: Sequence[int], activations: Sequence[str], seed: int, init: str = "he"
    ) -> None:
        super().__init__(name="dense_net")
        rng = np.random.default_rng(seed)
        self.kernels, self.biases = [], []
        for m, n in pairwise(widths):
            if init == "he":
                kernel, bias = rng.normal(size=(m, n)) * (2.0 / m) ** 0.5, np.zeros(n)
            else:
                bound = (6.0 / (m + n)) ** 0.5
                kernel, bias = rng.uniform(-bound, bound, (m, n)), rng.uniform(-bound, bound, n)
            self.kernels.append(tf.Variable(kernel.astype(np.float32), name="kernel"))
            self.biases.append(tf.Variable(bias.astype(np.float32), name="bias"))
        self._activations = [LAYERS[name] for name in activations]

    @property
    def weights(self) -> list[tf.Variable]:
        """Kernel and bias of each layer in turn."""
        return [v for pair in zip(self.kernels, self.biases, strict=True) for v in pair]

    def __call__(self, x: tf.Tensor) -> tuple[tf.Tensor, tuple[DenseLayer, ...]]:
        """Returns the last layer's preactivations, and what each layer did."""
        done = []
        z = x
        for kernel, bias, act in zip(self.kernels, self.biases, self._activations, strict=True):
            z = tf.matmul(x, kernel) + bias
            done.append(DenseLayer(kernel, bias, act, x, z))
            x = act(z)
        return z, tuple(done)
