"""Batch size and noise in one private pass: ``python -m research_modules.dp_training.single_pass``.

Logistic regression on 32 numbers, each example seen once. Independent noise needs large batches;
correlated noise, which cancels over releases, hardly cares. Rates are chosen per cell on the same
streams, which is too kind to all of them alike, and is not private.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from research_modules.dp_training.accounting import single_pass_noise
from research_modules.dp_training.noise import mixing, sensitivity

WIDTH, DELTA, CLIP = 32, 1e-6, 1.0
BATCHES = (32, 128, 512, 2048)
RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_KEPT = 256


def simulate(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Returns inputs float64[n, 32], labels float64[n] and the log loss of the truth."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, WIDTH)) * 2.0 / WIDTH**0.5
    logits = x @ (rng.normal(size=WIDTH) * 1.3) - 1.0
    truth = 1.0 / (1.0 + np.exp(-logits))
    labels = (rng.random(n) < truth).astype(float)
    return x, labels, log_loss(logits, labels)


def log_loss(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Returns the mean log loss in nats."""
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def one_pass(
    x: NDArray[np.float64], labels: NDArray[np.float64], batch: int, rate: float,
    deviation: float, weights: NDArray[np.float64], seed: int,
) -> float:  # fmt: skip
    """Returns the progressive log loss of one private pass.

    Args:
        x: Inputs.
        labels: 0 or 1.
        batch: Examples in a release.
        rate: Step size on the mean gradient.
        deviation: Standard deviation of each draw, on the sum of clipped gradients.
        weights: Mixing weights of the noise; ``[1.0]`` for independent noise.
        seed: Decides the noise.
    """
    rng = np.random.default_rng(seed)
    inputs = np.column_stack([x, np.ones(len(x))])
    size = np.linalg.norm(inputs, axis=1)
    w, seen = np.zeros(inputs.shape[1]), np.empty(len(x))
    draws = deviation * rng.normal(size=(len(x) // batch, len(w)))
    for t in range(len(draws)):
        rows = slice(t * batch, (t + 1) * batch)
        seen[rows] = inputs[rows] @ w
        error = 1.0 / (1.0 + np.exp(-seen[rows])) - labels[rows]
        error *= np.minimum(1.0, CLIP / np.maximum(np.abs(error) * size[rows], 1e-12))
        newest = draws[max(0, t - len(weights) + 1) : t + 1][::-1]
        w -= rate / batch * (error @ inputs[rows] + weights[: len(newest)] @ newest)
    n = len(draws) * batch
    return log_loss(seen[:n], labels[:n])


def cell(
    streams: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], float]],
    epsilon: float, batch: int, correlated: bool,
) -> float:  # fmt: skip
    """Returns the mean log loss over streams at the best rate; ``epsilon`` 0 adds no noise."""
    releases = len(streams[0][0]) // batch
    weights = mixing(min(_KEPT, releases)) if correlated else mixing(1)
    noise = single_pass_noise(epsilon, DELTA) if epsilon else 0.0
    deviation = noise * CLIP * (sensitivity(weights, releases) if correlated else 1.0)
    return min(
        float(np.mean([
            one_pass(x, labels, batch, rate, deviation, weights, seed)
            for seed, (x, labels, _) in enumerate(streams)
        ]))
        for rate in RATES
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=65_536)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    streams = [simulate(given.examples, seed) for seed in range(given.seeds)]
    print(f"true probabilities {np.mean([bayes for *_, bayes in streams]):.4f}")
    print(f"{'':<28}" + "".join(f"{f'B = {batch}':>10}" for batch in BATCHES))
    for epsilon in (1.0, 3.0, 8.0, 0.0):
        for correlated in (False, True) if epsilon else (False,):
            found = [cell(streams, epsilon, batch, correlated) for batch in BATCHES]
            kind = "sqrt_toeplitz" if correlated else "independent"
            name = f"epsilon {epsilon:g}, {kind}" if epsilon else "no noise, clipped"
            print(f"{name:<28}" + "".join(f"{value:>10.4f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
