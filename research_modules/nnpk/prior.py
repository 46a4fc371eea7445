"""Networks drawn from an initialiser and never trained: one number of each is a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.errors import ConfigError, nearest

#: Weight variance times fan-in: He's for ReLU. erf needs a gain of 2 to leave its linear regime.
VARIANCE = {"relu": 2.0, "erf": 4.0, "linear": 1.0}
NORMS = ("none", "prior", "cosine", "white")
#: Synthetic inputs per feature that whitening goes by, and the least share of the largest variance
#: that counts as one.
_REFERENCE, _LEAST = 16, 1e-4
#: Networks whose hidden layers are in memory at a time.
_NETS_AT_ONCE = 64


class Weights(NamedTuple):
    """The weights of a block of networks, float32.

    Attributes:
        first: [d, n * width], all first layers side by side.
        deeper: One [n, width, width] per further hidden layer.
        biases: One [n, 1, width] per hidden layer.
        out: [n, width].
    """

    first: NDArray[np.float32]
    deeper: list[NDArray[np.float32]]
    biases: list[NDArray[np.float32]]
    out: NDArray[np.float32]


@dataclass(frozen=True)
class Prior:
    """The distribution of networks, and how many are drawn from it.

    A hidden layer is ``act(W h + b)`` with ``W ~ N(0, v / fan_in)``, ``v`` from ``VARIANCE``, and
    ``b ~ N(0, bias_std**2)``; the output is ``w . h`` with ``w ~ N(0, 1 / width)``.

    Attributes:
        n: Networks, one feature each. Independent draws: ``n`` outputs of one network would be
            correlated, and at most as many as its last layer is wide.
        depth: Hidden layers.
        width: Units of each.
        activation: ``relu``, ``erf`` or ``linear``, those whose kernel has a closed form.
        bias_std: Standard deviation of the hidden biases. At 0 a ReLU network is homogeneous:
            its features only see the direction of the input.
        seed: Decides the networks; network j depends on (seed, j) alone, so a larger ``n`` keeps
            the features there were.
        norm: ``none``; ``prior`` divides by the standard deviation of the output under the prior
            (closed form, per example); ``cosine`` gives every example a feature vector of length
            1; ``white`` makes the features uncorrelated, of mean 0 and variance 1 / n, for inputs
            that are standard normal. None uses statistics of the data. Most of the prior's
            variance is what all inputs share, which ``white`` takes out: what a first-order
            learner then sees is no longer the kernel, but learns several times faster.
    """

    n: int = 128
    depth: int = 2
    width: int = 16
    activation: str = "relu"
    bias_std: float = 0.5
    seed: int = 0
    norm: str = "prior"

    def __post_init__(self) -> None:
        if min(self.n, self.depth, self.width) < 1 or self.bias_std < 0 or self.seed < 0:
            raise ConfigError(
                "prior networks: n, depth and width must be at least 1, bias_std and seed at "
                f"least 0, received {self.n}, {self.depth}, {self.width}, {self.bias_std}, "
                f"{self.seed}."
            )
        if self.activation not in VARIANCE:
            raise ConfigError(
                f"no prior with activation {self.activation!r}: "
                f"{nearest(self.activation, VARIANCE)}"
            )
        if self.norm not in NORMS:
            raise ConfigError(
                f"no norm {self.norm!r} of prior features: {nearest(self.norm, NORMS)}"
            )

    def draw(self, n_inputs: int, start: int, stop: int) -> Weights:
        """Draws the networks ``start .. stop - 1`` for inputs of ``n_inputs`` numbers."""
        nets = [self._net(n_inputs, j) for j in range(start, stop)]
        first = np.stack([net[0] for net in nets], axis=1)
        return Weights(
            first.reshape(n_inputs, -1),
            [np.stack([net[1][i] for net in nets]) for i in range(self.depth - 1)],
            [np.stack([net[2][i][None] for net in nets]) for i in range(self.depth)],
            np.stack([net[3] for net in nets]),
        )

    def _net(self, n_inputs: int, number: int) -> tuple:
        # Counter based: one generator per network. A shared one would make all features equal,
        # or those of a larger n different.
        rng = np.random.Generator(np.random.Philox(key=[self.seed, number]))

        def normal(*shape: int, scale: float) -> NDArray[np.float32]:
            return rng.standard_normal(shape, np.float32) * np.float32(scale)

        gain, width = VARIANCE[self.activation], self.width
        first = normal(n_inputs, width, scale=(gain / n_inputs) ** 0.5)
        deeper = [normal(width, width, scale=(gain / width) ** 0.5) for _ in range(self.depth - 1)]
        biases = [normal(width, scale=self.bias_std) for _ in range(self.depth)]
        return first, deeper, biases, normal(width, scale=width**-0.5)


class PriorFeatures(tf.Module):
    """``f(x; theta_1..n) / sqrt(n)``: their inner products estimate the prior kernel.

    The weights are constants that follow from the prior, no variables: nothing trains them, and
    no checkpoint stores them (only the n x n matrix of ``white``, which is not trained either).

    Paper: Amid, Anil, Kotlowski, Warmuth 2022, "Learning from randomly initialized neural network
    features" (arXiv:2202.06438).

    Args:
        prior: What to draw.
        n_inputs: Numbers per example, d.
    """

    def __init__(self, prior: Prior, n_inputs: int) -> None:
        super().__init__(name="prior_features")
        self.prior, self.n_inputs = prior, n_inputs
        self._blocks = [
            Weights(*_constants(prior.draw(n_inputs, at, min(at + _NETS_AT_ONCE, prior.n))))
            for at in range(0, prior.n, _NETS_AT_ONCE)
        ]
        if prior.norm == "white":
            mean, root = self._whitening()
            # Variables, for another machine's eigenvalues end in other bits.
            self.mean = tf.Variable(mean, trainable=False, name="mean")
            self.root = tf.Variable(root, trainable=False, name="root")

    def _whitening(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        prior = self.prior
        rng = np.random.Generator(np.random.Philox(key=[prior.seed, 1 << 63]))
        x = rng.standard_normal((max(_REFERENCE * prior.n, 256), self.n_inputs), np.float32)
        outputs = self._all(tf.constant(x)).numpy().astype(np.float64)
        mean = outputs.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(outputs - mean, rowvar=False).reshape(prior.n, -1))
        # The symmetric root: the one that does not depend on how eigenvectors are chosen.
        root = (vectors / np.sqrt(np.maximum(values, _LEAST * values[-1]))) @ vectors.T
        return mean.astype(np.float32), root.astype(np.float32)

    def _all(self, x: tf.Tensor) -> tf.Tensor:
        return tf.concat([self._run(block, x) for block in self._blocks], axis=1)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns float32[B, n] for ``x`` float32[B, d], whose coordinates should be about 1."""
        outputs, prior = self._all(x), self.prior
        if prior.norm == "white":
            return tf.matmul(outputs - self.mean, self.root) * prior.n**-0.5
        if prior.norm == "cosine":
            return tf.math.l2_normalize(outputs, axis=1)
        outputs *= prior.n**-0.5
        if prior.norm == "none":
            return outputs
        return outputs * tf.math.rsqrt(prior_variance(prior, x) + 1e-12)[:, None]

    def _run(self, weights: Weights, x: tf.Tensor) -> tf.Tensor:
        act = _ACTIVATIONS[self.prior.activation]
        n, width = weights.out.shape
        h = tf.reshape(tf.matmul(x, weights.first), [-1, n, width])
        h = act(tf.transpose(h, [1, 0, 2]) + weights.biases[0])
        for matrix, bias in zip(weights.deeper, weights.biases[1:], strict=True):
            h = act(tf.matmul(h, matrix) + bias)
        return tf.transpose(tf.reduce_sum(h * weights.out[:, None, :], axis=2))


_ACTIVATIONS = {"relu": tf.nn.relu, "erf": tf.math.erf, "linear": tf.identity}


def prior_variance(prior: Prior, x: tf.Tensor) -> tf.Tensor:
    """Returns ``K(x, x)``, the variance of an output under the prior, float32[B].

    Exact at every width for relu and linear; that of infinite width for erf.
    """
    k = tf.reduce_mean(x * x, axis=1)
    for _ in range(prior.depth):
        q = VARIANCE[prior.activation] * k + prior.bias_std**2
        if prior.activation == "relu":
            k = 0.5 * q
        elif prior.activation == "erf":
            k = (2.0 / np.pi) * tf.math.asin(2.0 * q / (1.0 + 2.0 * q))
        else:
            k = q
    return k


def _constants(weights: Weights) -> list:
    return [
        [tf.constant(w) for w in part] if isinstance(part, list) else tf.constant(part)
        for part in weights
    ]
