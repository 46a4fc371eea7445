"""Robustness on a stream of rotating digits: ``python -m research_modules.eg_step_size.digits``.

Four segments of 400 batches of 32 images; each segment turns the images by another 90 degrees.
Every batch is predicted, then learned, by SGD with momentum at a constant rate, at a rate that
falls linearly to 0, and at a constant rate with a learned scale.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.bench.digits import DenseNet, load_digits
from ctr.optimizers import KerasOptimizer
from research_modules.eg_step_size.scale import EgScale, ScaleState

RATES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
METHODS = ("constant", "linear decay", "eg")
SEGMENTS, BATCHES, SIZE = 4, 400, 32
#: Bounds of the scale as in the paper's setting, where the base rate may be off by any factor.
EG = EgScale(rate=0.1, memory=0.0, lowest=1e-6, highest=1e6)


def stream(seed: int, batches: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Returns images float32[4 * batches, 32, 64] and digits int32[4 * batches, 32]."""
    images, digits = load_digits()
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(digits), (SEGMENTS, batches, SIZE))
    square = images.reshape(-1, 8, 8)
    parts = [np.rot90(square, k, (1, 2)).reshape(-1, 64)[chosen[k]] for k in range(SEGMENTS)]
    return np.concatenate(parts), digits[chosen].reshape(-1, SIZE)


class Study:
    """One compiled pass that serves every rate and seed of a method.

    Args:
        eg: Rules of the scale; None for none.
        decay: True lets the rate fall linearly to 0.
        batches: Batches of each segment.
    """

    def __init__(self, eg: EgScale | None, decay: bool, batches: int = BATCHES) -> None:
        self._n = SEGMENTS * batches
        self._decay, self._batches = decay, batches
        self._net = DenseNet((64, 64, 64, 10), ("relu", "relu", "identity"), 0)
        self._base = KerasOptimizer("SGD", 1.0, momentum=0.9).build(self._net.weights)
        self._scale = ScaleState(eg or EgScale(rate=0.0), self._net.weights)
        self._start = [tf.identity(v) for v in (*self._scale.variables, *self._base.slots)]
        self._run = tf.function(self._learn, jit_compile=True)

    def run(self, rate: float, seed: int) -> tuple[NDArray, NDArray, NDArray]:
        """Returns the loss, the accuracy and the scale of each batch, float32[n]."""
        variables = (*self._scale.variables, *self._base.slots)
        for variable, value in zip(variables, self._start, strict=True):
            variable.assign(value)
        fresh = DenseNet((64, 64, 64, 10), ("relu", "relu", "identity"), seed)
        for variable, value in zip(self._net.weights, fresh.weights, strict=True):
            variable.assign(value)
        images, digits = stream(seed, self._batches)
        out = self._run(tf.constant(images), tf.constant(digits), tf.constant(rate, tf.float32))
        loss, accuracy, scale = (part.numpy() for part in out)
        return loss, accuracy, scale

    def _learn(
        self, images: tf.Tensor, digits: tf.Tensor, rate: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        outs = [tf.TensorArray(tf.float32, self._n, element_shape=[]) for _ in range(3)]
        step = tf.zeros([], tf.int32)
        while step < self._n:
            left = 1.0 - tf.cast(step, tf.float32) / self._n if self._decay else 1.0
            self._base.optimizer.learning_rate.assign(rate * left)
            with tf.GradientTape() as tape:
                logits, _ = self._net(images[step])
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(digits[step], logits)
                )
            hit = tf.argmax(logits, axis=1, output_type=tf.int32) == digits[step]
            gradients = tape.gradient(loss, self._net.weights)
            scale = self._scale.step(gradients, self._base.apply)
            values = (loss, tf.reduce_mean(tf.cast(hit, tf.float32)), scale)
            outs = [out.write(step, value) for out, value in zip(outs, values, strict=True)]
            step += 1
        return tuple(out.stack() for out in outs)


def study(methods: Sequence[str] = METHODS, batches: int = BATCHES) -> dict[str, Study]:
    """Returns the compiled passes by method."""
    return {
        name: Study(EG if name == "eg" else None, name == "linear decay", batches)
        for name in methods
    }


def recovery(accuracy: NDArray[np.float32], batches: int) -> float:
    """Returns batches from each change until the mean of 20 batches is 90 % again, averaged."""
    found = []
    for start in range(batches, len(accuracy), batches):
        part = np.convolve(accuracy[start : start + batches], np.ones(20) / 20, "valid")
        reached = np.flatnonzero(part >= 0.9)
        found.append(reached[0] + 20 if len(reached) else batches)
    return float(np.mean(found))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each line (default: 3)")
    seeds = range(parser.parse_args().seeds)
    print("| base rate | method | loss | accuracy | batches to 90 % | scale 400, 450, 799, 850 |")
    print("| --- | --- | --- | --- | --- | --- |")
    passes = study()
    for rate in RATES:
        for name, one in passes.items():
            runs = [one.run(rate, seed) for seed in seeds]
            losses = [min(float(run[0].mean()), 99.0) for run in runs]
            back = np.mean([recovery(run[1], BATCHES) for run in runs])
            scale = np.exp(np.mean([np.log(run[2]) for run in runs], axis=0))
            at = ", ".join(f"{scale[i]:.3g}" for i in (399, 449, 799, 849))
            hit = np.mean([run[1].mean() for run in runs])
            print(
                f"| {rate:g} | {name} | {np.mean(losses):.3f} | {hit:.3f} | {back:.0f} | "
                f"{at if name == 'eg' else ''} |"
            )


if __name__ == "__main__":
    main()
