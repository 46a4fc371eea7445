"""Four optimizers, equally tuned, on digits: ``python -m research_modules.large_batch.digits``.

A fixed number of steps at each batch size. Every optimizer is tried at the same points of the unit
cube; the best by validation is trained anew with fresh seeds and judged on test images.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.bench.digits import DenseNet, load_digits
from ctr.harness.tuning import halton_choices
from research_modules.large_batch.rules import RULES, RuleState
from research_modules.large_batch.space import Knobs, space
from research_modules.large_batch.trials import Found, summary, table

WIDTHS, ACTIVATIONS = (64, 64, 64, 64, 10), ("relu", "relu", "relu", "identity")
#: Images to learn from and to choose by; the others judge.
TRAIN, VALIDATION = 1200, 1500
#: (batch size, steps): the second learns more examples in an eighth of the steps.
BUDGETS = ((64, 400), (1024, 50))
DIVERGED = 2.0


class Training:
    """One compiled training of an optimizer, for any choice and seed.

    Args:
        optimizer: A name of ``RULES``.
        size: Images per batch.
        steps: Batches.
    """

    def __init__(self, optimizer: str, size: int, steps: int) -> None:
        self._size, self._steps = size, steps
        self._knobs = Knobs(steps, fall=True)
        self._net = DenseNet(WIDTHS, ACTIVATIONS, 0)
        self._state = RuleState(optimizer, self._knobs.settings, self._net.weights)
        images, digits = load_digits()
        self._images, self._digits = tf.constant(images), tf.constant(digits)
        self._train = tf.function(self._learn, jit_compile=True)

    def run(self, choice: dict[str, Any], seed: int) -> NDArray[np.float32]:
        """Returns validation loss, test loss and test accuracy, float32[3]."""
        self._knobs.turn(choice)
        fresh = DenseNet(WIDTHS, ACTIVATIONS, seed)
        for variable, value in zip(self._net.weights, fresh.weights, strict=True):
            variable.assign(value)
        for variable in (self._state.step, *(slot for row in self._state.slots for slot in row)):
            variable.assign(tf.zeros_like(variable))
        rng = np.random.default_rng(seed)
        passes = -(-self._steps * self._size // TRAIN)
        order = np.concatenate([rng.permutation(TRAIN) for _ in range(passes)])
        order = order[: self._steps * self._size].reshape(self._steps, self._size)
        return self._train(tf.constant(order, tf.int32)).numpy()

    def _learn(self, order: tf.Tensor) -> tf.Tensor:
        step = tf.zeros([], tf.int32)
        while step < self._steps:
            rows = order[step]
            with tf.GradientTape() as tape:
                logits, _ = self._net(tf.gather(self._images, rows))
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    tf.gather(self._digits, rows), logits
                )
                loss = tf.reduce_mean(losses)
            self._state.apply(tape.gradient(loss, self._net.weights))
            step += 1
        logits, _ = self._net(self._images)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(self._digits, logits)
        hits = tf.argmax(logits, axis=1, output_type=tf.int32) == self._digits
        return tf.stack([
            tf.reduce_mean(losses[TRAIN:VALIDATION]),
            tf.reduce_mean(losses[VALIDATION:]),
            tf.reduce_mean(tf.cast(hits[VALIDATION:], tf.float32)),
        ])  # fmt: skip


def tuned(optimizer: str, size: int, steps: int, trials: int, seeds: int) -> dict[str, Any]:
    """Searches one optimizer at one batch size, then trains the winner anew.

    Returns:
        ``found``, the :class:`Found` of the search; ``choice``, its best; ``test`` and
        ``accuracy`` of each fresh seed, and ``training``, to try further choices.
    """
    ranges = space(optimizer, power=[1.0, 2.0])
    training = Training(optimizer, size, steps)
    choices = halton_choices(ranges, trials, seed=0)
    scores = [float(training.run(choice, 0)[0]) for choice in choices]
    found: Found = summary(scores, choices, ranges, DIVERGED)
    best = choices[int(np.nanargmin(scores))]
    runs = np.array([training.run(best, 100 + seed) for seed in range(seeds)])
    return {"found": found, "choice": best, "test": runs[:, 1], "accuracy": runs[:, 2],
            "training": training}  # fmt: skip


def scaled(choice: dict[str, Any], factor: float) -> dict[str, Any]:
    """Returns a choice whose rate is multiplied."""
    return {**choice, "rate": choice["rate"] * factor}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Four optimizers, equally tuned, on digits.")
    parser.add_argument("--trials", type=int, default=64, help="of each optimizer (default: 64)")
    parser.add_argument("--seeds", type=int, default=8, help="of each winner (default: 8)")
    args = parser.parse_args()
    results = {
        (name, budget): tuned(name, *budget, args.trials, args.seeds)
        for budget in BUDGETS
        for name in RULES
    }
    for size, steps in BUDGETS:
        print(f"\nBatch {size}, {steps} steps, validation loss of {args.trials} trials each\n")
        print(table({name: results[name, (size, steps)]["found"] for name in RULES}))
    print("\nTest loss of the winners, median (quartiles) over fresh seeds\n")
    for (name, (size, steps)), one in results.items():
        low, middle, high = np.percentile(one["test"], (25, 50, 75))
        print(
            f"| {size}/{steps} | {name} | {middle:.3f} ({low:.3f} to {high:.3f}) | "
            f"{np.median(one['accuracy']):.3f} |"
        )
    print("\nThe small batch's winner at the large batch, rate kept, times sqrt(16), times 16\n")
    for name in RULES:
        training, choice = results[name, BUDGETS[1]]["training"], results[name, BUDGETS[0]]
        cells = []
        for factor in (1.0, 4.0, 16.0):
            runs = [training.run(scaled(choice["choice"], factor), 100 + s)[1] for s in range(3)]
            cells.append(f"{np.median(runs):.3f}")
        retuned = np.median(results[name, BUDGETS[1]]["test"])
        print(f"| {name} | {' | '.join(cells)} | retuned {retuned:.3f} |")


if __name__ == "__main__":
    main()
