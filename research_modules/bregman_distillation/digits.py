"""Digits by compressed layers: ``python -m research_modules.bregman_distillation.digits``.

Two studies: does the geometry matter when a teacher's 10 probabilities are compressed; and what a
small student learns from a few unlabelled images, by which target.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.models.activations import LEAK
from research_modules.bregman_distillation.geometry import TRANSFERS
from research_modules.bregman_distillation.pca import BregmanPca, fit

#: A dense layer: kernel and bias.
Layer = tuple[tf.Variable, tf.Variable]
N_TRAIN = 1000


class Images(NamedTuple):
    """scikit-learn's digits: 64 pixels in 0 to 1, and their classes."""

    train: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test: NDArray[np.float32]
    test_y: NDArray[np.int64]


def images() -> Images:
    """Returns the digits in a fixed random order, 1,000 for training and 797 for testing."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = (data.data / 16.0).astype(np.float32)[order], data.target[order]
    return Images(x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:])


def kl(target: NDArray, guess: NDArray) -> float:
    """Returns the mean divergence of class probabilities, nats."""
    target, guess = (np.maximum(p.astype(float), 1e-6) for p in (target, guess))
    return float((target * (np.log(target) - np.log(guess))).sum(axis=1).mean())


def geometry(ks: Sequence[int]) -> dict[int, dict[str, float]]:
    """Returns held-out divergences of a teacher's compressed probabilities, by k and method."""
    from sklearn.neural_network import MLPClassifier

    data = images()
    teacher = MLPClassifier(64, alpha=3.0, max_iter=400, random_state=0)
    teacher.fit(data.train, data.train_y)
    fitted, held_out = teacher.predict_proba(data.train), teacher.predict_proba(data.test)
    softmax = TRANSFERS["softmax"]
    logits, held_logits = softmax.inverse(fitted), softmax.inverse(held_out)
    table = {}
    for k in ks:
        pca = fit(fitted, k, softmax)
        centre, basis = _principal(logits, k)
        linear = BregmanPca(softmax, centre, basis, np.zeros((0, k)), (), 0.0)
        mean, directions = _principal(fitted, k)
        clipped = (held_out - mean) @ directions @ directions.T + mean
        clipped = np.maximum(clipped, 1e-6)
        table[k] = {
            "Bregman PCA": kl(held_out, pca.reconstruct(pca.solve(held_out))),
            "PCA on logits, best coefficients": kl(
                held_out, linear.reconstruct(linear.solve(held_out))
            ),
            "PCA on logits, projected": kl(
                held_out, linear.reconstruct((held_logits - centre) @ basis)
            ),
            "PCA on probabilities": kl(held_out, clipped / clipped.sum(axis=1, keepdims=True)),
        }
    return table


def _principal(x: NDArray, k: int) -> tuple[NDArray, NDArray]:
    mean = x.mean(axis=0)
    return mean, np.linalg.svd(x - mean, full_matrices=False)[2][:k].T


def network(widths: Sequence[int], seed: int) -> list[Layer]:
    """Returns dense layers with He-normal kernels."""
    rng = np.random.default_rng(seed)
    return [
        (
            tf.Variable(rng.normal(0, (2 / m) ** 0.5, (m, n)).astype(np.float32)),
            tf.Variable(np.zeros(n, np.float32)),
        )
        for m, n in itertools.pairwise(widths)
    ]


def run(layers: Sequence[Layer], x: tf.Tensor) -> tf.Tensor:
    """Applies layers with leaky ReLU between them, none after the last."""
    for i, (kernel, bias) in enumerate(layers):
        x = tf.matmul(x, kernel) + bias
        if i < len(layers) - 1:
            x = tf.nn.leaky_relu(x, LEAK)
    return x


def train(
    variables: Sequence[tf.Variable],
    loss: Callable[[tf.Tensor], tf.Tensor],
    n_rows: int,
    steps: int,
    seed: int,
    rate: float = 5e-3,
) -> None:
    """Adam with a linearly falling rate, batches of 64 drawn from ``n_rows`` rows.

    Args:
        variables: What is trained.
        loss: Maps row numbers int32[64] to a scalar.
        n_rows: Rows to draw from.
        steps: Updates.
        seed: Decides the draws.
        rate: First rate.
    """
    rng = np.random.default_rng(seed)
    batches = tf.constant(rng.integers(0, n_rows, (steps, 64)), tf.int32)
    moments = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in variables]

    @tf.function(jit_compile=True)
    def all_steps() -> None:
        for i in tf.range(steps):
            with tf.GradientTape() as tape:
                value = loss(batches[i])
            at = tf.cast(i, tf.float32)
            scale = tf.sqrt(1 - 0.999 ** (at + 1)) / (1 - 0.9 ** (at + 1))
            size = rate * (1 - at / steps) * scale
            gradients = tape.gradient(value, list(variables))
            for v, g, (m, s) in zip(variables, gradients, moments, strict=True):
                m.assign(0.9 * m + 0.1 * g)
                s.assign(0.999 * s + 0.001 * g * g)
                v.assign_sub(size * m / (tf.sqrt(s) + 1e-8))

    all_steps()


class Teacher:
    """A network 64-128-64-10 on the training images, and the compression of its last layer."""

    def __init__(self, data: Images, seed: int = 0, steps: int = 3000) -> None:
        self.layers = network((64, 128, 64, 10), seed)
        x, y = tf.constant(data.train), tf.constant(data.train_y, tf.int32)
        train(
            [w for layer in self.layers for w in layer],
            lambda rows: tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    tf.gather(y, rows), run(self.layers, tf.gather(x, rows))
                )
            ),
            N_TRAIN, steps, seed,
        )  # fmt: skip

    def hidden(self, x: NDArray) -> NDArray[np.float32]:
        """Returns the last hidden layer, float32[n, 64]."""
        return tf.nn.leaky_relu(run(self.layers[:-1], tf.constant(x)), LEAK).numpy()

    def probs(self, x: NDArray) -> NDArray[np.float32]:
        """Returns class probabilities, float32[n, 10]."""
        return tf.nn.softmax(run(self.layers, tf.constant(x))).numpy()


def student(
    data: Images, teacher: Teacher, target: str, n: int, k: int, seed: int, steps: int
) -> tuple[float, float]:
    """Trains a student 64-16-k on ``n`` images without labels.

    Args:
        data: The digits.
        teacher: What it learns from.
        target: ``soft`` (probabilities, own head), ``imported`` (probabilities through the fixed
            layer and head), ``penultimate`` (squares on the 64 outputs) or ``bregman``.
        n: Images.
        k: Coefficients.
        seed: Decides initial values and batches.
        steps: Updates.

    Returns:
        Test accuracy, and the divergence to the teacher.
    """
    few = data.train[:n]
    x, soft, hidden = (tf.constant(v) for v in (few, teacher.probs(few), teacher.hidden(few)))
    pca = fit(hidden.numpy().astype(float), k, TRANSFERS["leaky_relu"])
    v, mean = (tf.constant(part.astype(np.float32)) for part in (pca.components, pca.mean))
    outputs = {"soft": 10, "penultimate": 64}.get(target, k)
    layers = network((64, 16, outputs), 100 + seed)
    head = teacher.layers[-1]

    def pre(rows: tf.Tensor) -> tf.Tensor:
        return tf.matmul(run(layers, rows), v, transpose_b=True) + mean

    def logits(rows: tf.Tensor) -> tf.Tensor:
        if target == "soft":
            return run(layers, rows)
        a = run(layers, rows) if target == "penultimate" else tf.nn.leaky_relu(pre(rows), LEAK)
        return tf.matmul(a, head[0]) + head[1]

    def loss(rows: tf.Tensor) -> tf.Tensor:
        seen, wanted = tf.gather(x, rows), tf.gather(hidden, rows)
        if target == "penultimate":
            return tf.reduce_mean(tf.square(run(layers, seen) - wanted))
        if target == "bregman":
            a = pre(seen)
            # F(a) - a x; the conjugate of the target has no gradient.
            potential = 0.5 * a * tf.nn.leaky_relu(a, LEAK) - a * wanted
            return tf.reduce_mean(tf.reduce_sum(potential, axis=1))
        return tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(tf.gather(soft, rows), logits(seen))
        )

    train([w for layer in layers for w in layer], loss, n, steps, seed)
    guess = tf.nn.softmax(logits(tf.constant(data.test))).numpy()
    accuracy = float((guess.argmax(axis=1) == data.test_y).mean())
    return accuracy, kl(teacher.probs(data.test), guess)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 300, 1000])
    args = parser.parse_args()
    print("held-out KL(teacher || reconstruction)")
    for k, values in geometry((1, 2, 3, 5)).items():
        print(f"k={k}  " + "  ".join(f"{name} {v:.4f}" for name, v in values.items()))
    data = images()
    teacher = Teacher(data)
    accuracy = (teacher.probs(data.test).argmax(axis=1) == data.test_y).mean()
    print(f"teacher {accuracy:.3f}; students: accuracy and KL to the teacher", flush=True)
    arms = [(n, target, 16) for n in args.images
            for target in ("soft", "imported", "penultimate", "bregman")]  # fmt: skip
    arms += [(args.images[0], "bregman", k) for k in (4, 8)]
    for n, target, k in arms:
        runs = np.array(
            [student(data, teacher, target, n, k, seed, args.steps) for seed in range(args.seeds)]
        )
        mean, spread = runs.mean(axis=0), runs.std(axis=0, ddof=1) if args.seeds > 1 else (0, 0)
        print(
            f"n={n:<5} {target:<12} k={k:<3} accuracy {mean[0]:.3f} +- {spread[0]:.3f}  "
            f"KL {mean[1]:.3f} +- {spread[1]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
