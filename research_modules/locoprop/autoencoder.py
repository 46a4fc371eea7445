"""LocoProp against BackProp: ``python -m research_modules.locoprop.autoencoder``.

A deep autoencoder: scikit-learn's digits through 64-128-64-32-8-32-64-128-64 units (tanh, a linear
code, a sigmoid output), cross entropy summed over pixels. Shown is the training loss over all
images, less the entropy of the pixels: a claim on optimization, not on new images.
"""

from __future__ import annotations

import argparse

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.bench.digits import DenseNet, load_digits
from ctr.optimizers import KerasOptimizer
from research_modules.locoprop.local import LocalProblem, LocalRule, LocalState

WIDTHS = (64, 128, 64, 32, 8, 32, 64, 128, 64)
ACTIVATIONS = ("tanh", "tanh", "tanh", "identity", "tanh", "tanh", "tanh", "sigmoid")
USED = 1700
WARM_UP = 3

#: Batch size -> method -> (rule, rate); one local step is BackProp with the same optimizer.
TUNED = {
    100: {
        "BackProp": (LocalRule(steps=1), 1e-3),
        "LocoProp-S": (LocalRule("squared", 10, 1.0), 1e-3),
        "LocoProp-M": (LocalRule("matching", 10, 0.1), 1e-3),
    },
    425: {
        "BackProp": (LocalRule(steps=1), 1e-3),
        "LocoProp-S": (LocalRule("squared", 10, 40 / 425), 3e-3),
        "LocoProp-M": (LocalRule("matching", 10, 40 / 425), 2e-3),
    },
}


class Autoencoder:
    """One compiled training, for any rate and seed.

    Args:
        size: Images per batch; 1,700 images make an epoch.
        epochs: Passes; the rate rises over the first three and then falls linearly to 0.
        rule: Local learning; one step with gamma 1 is BackProp.
    """

    def __init__(self, size: int, epochs: int, rule: LocalRule) -> None:
        self._size, self._epochs, self._rule = size, epochs, rule
        self._per_epoch = USED // size
        self._net = DenseNet(WIDTHS, ACTIVATIONS, 0, "glorot")
        self._base = KerasOptimizer("RMSprop", 1.0, momentum=0.9).build(self._net.weights)
        self._local = LocalState(rule, self._base, self._net.weights, len(ACTIVATIONS))
        self._images = tf.constant(load_digits()[0])
        self._epoch = tf.function(self._learn, jit_compile=True)

    def run(self, rate: float, seed: int) -> NDArray[np.float64]:
        """Returns the training loss above the pixels' entropy after each epoch, float64[epochs]."""
        fresh = DenseNet(WIDTHS, ACTIVATIONS, seed, "glorot")
        for variable, value in zip(self._net.weights, fresh.weights, strict=True):
            variable.assign(value)
        for slot in self._base.slots:
            slot.assign(tf.zeros_like(slot))
        rng = np.random.default_rng(seed)
        losses = []
        for epoch in range(self._epochs):
            order = rng.permutation(USED)[: self._per_epoch * self._size]
            steps = np.arange(self._per_epoch) / self._per_epoch + epoch
            fall = (self._epochs - steps) / (self._epochs - WARM_UP)
            rates = rate * np.minimum(np.minimum(steps / WARM_UP, fall), 1.0)
            losses.append(self._epoch(
                tf.constant(order.reshape(self._per_epoch, -1), tf.int32),
                tf.constant(rates, tf.float32),
            ).numpy())  # fmt: skip
        pixels = np.clip(self._images[:USED].numpy().astype(np.float64), 1e-12, 1 - 1e-7)
        entropy = -(pixels * np.log(pixels) + (1 - pixels) * np.log1p(-pixels)).sum(1).mean()
        return np.array(losses, np.float64) - entropy

    def _learn(self, order: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:
        step = tf.zeros([], tf.int32)
        while step < self._per_epoch:
            self._base.optimizer.learning_rate.assign(rates[step])
            self._batch(tf.gather(self._images, order[step]))
            step += 1
        return tf.reduce_mean(self._losses(self._images[:USED])[0])

    def _batch(self, images: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            losses, layers = self._losses(images)
        errors = tape.gradient(losses, [layer.preactivation for layer in layers])
        weights = tf.ones([self._size])
        self._local.learn([
            LocalProblem(self._rule, layer, error, weights)
            for layer, error in zip(layers, errors, strict=True)
        ])  # fmt: skip

    def _losses(self, images: tf.Tensor) -> tuple[tf.Tensor, tuple]:
        logits, layers = self._net(images)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(images, logits)
        return tf.reduce_sum(losses, axis=1), layers


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="LocoProp against BackProp on an autoencoder.")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each line (default: 3)")
    parser.add_argument("--epochs", type=int, default=60, help="passes (default: 60)")
    parser.add_argument(
        "--batch", type=int, choices=[*TUNED], action="append", help="batch size (default: all)"
    )
    parser.add_argument(
        "--method", choices=[*TUNED[100]], action="append", help="method (default: all)"
    )
    args = parser.parse_args()
    epochs = " | ".join(f"epoch {e}" for e in _shown(args.epochs))
    print(f"| batch | method | rate | {epochs} |")
    print("| --- " * (3 + len(_shown(args.epochs))) + "|")
    for size in args.batch or TUNED:
        for name in args.method or TUNED[size]:
            rule, rate = TUNED[size][name]
            one = Autoencoder(size, args.epochs, rule)
            runs = np.array([one.run(rate, seed) for seed in range(args.seeds)])
            cells = " | ".join(f"{runs[:, e - 1].mean():.2f}" for e in _shown(args.epochs))
            last = ", ".join(f"{value:.2f}" for value in runs[:, -1])
            print(f"| {size} | {name} | {rate:g} | {cells} ({last}) |", flush=True)


def _shown(epochs: int) -> list[int]:
    return [epochs // 6, epochs // 3, epochs]


if __name__ == "__main__":
    main()
