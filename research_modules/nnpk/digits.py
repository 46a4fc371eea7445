"""Random features of handwritten digits: ``python -m research_modules.nnpk.digits``."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from research_modules.nnpk.kernels import (
    alignment,
    centred,
    effective_rank,
    kernel_ridge,
    prior_kernel,
)
from research_modules.nnpk.prior import Prior, PriorFeatures

#: The networks of the study: no biases, features as they come.
PRIOR = Prior(n=256, depth=2, width=64, bias_std=0.0, norm="none")
#: Inverse regularisations the read-out chooses from, on the test half as in the reference table.
_STRENGTHS = (0.3, 3.0, 30.0)
_RIDGES = (1e-4, 1e-3, 1e-2)


class Digits:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, centred, in two halves."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        order = np.random.default_rng(0).permutation(len(data.target))
        x = (data.data / 16.0)[order]
        y = data.target[order]
        half = len(y) // 2
        x = x - x[:half].mean(axis=0)
        x = x / x[:half].std()
        self.train, self.test = x[:half], x[half:]
        self.train_y, self.test_y = y[:half], y[half:]

    def read_out(self, train: NDArray, test: NDArray) -> float:
        """Returns the accuracy of logistic regression on features, the best of three strengths."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        scale = StandardScaler().fit(train)
        train, test = scale.transform(train), scale.transform(test)
        return max(
            LogisticRegression(C=c / train.shape[1], max_iter=100)
            .fit(train, self.train_y)
            .score(test, self.test_y)
            for c in _STRENGTHS
        )

    def accuracy(self, prior: Prior) -> float:
        """Returns the accuracy of a linear read-out of a prior's features."""
        features = PriorFeatures(prior, self.train.shape[1])
        return self.read_out(
            features(self.train.astype(np.float32)).numpy(),
            features(self.test.astype(np.float32)).numpy(),
        )

    def one_network(self, outputs: int, width: int) -> float:
        """Returns the accuracy of many outputs of one network with two hidden layers."""
        weights = PRIOR.draw(self.train.shape[1], 0, 1)
        assert width == PRIOR.width
        out = np.random.default_rng(1).normal(0, width**-0.5, (width, outputs))

        def run(x: NDArray) -> NDArray:
            hidden = np.maximum(np.maximum(x @ weights.first, 0) @ weights.deeper[0][0], 0)
            return hidden @ out

        return self.read_out(run(self.train), run(self.test))

    def kernel_accuracy(self, prior: Prior) -> float:
        """Returns the accuracy of kernel ridge regression with the exact kernel."""
        kernel = prior_kernel(prior, self.train, self.train)
        against = prior_kernel(prior, self.test, self.train)
        targets = np.eye(10)[self.train_y] - 0.1
        guesses = [kernel_ridge(kernel, targets, against, r).argmax(axis=1) for r in _RIDGES]
        return max(float((guess == self.test_y).mean()) for guess in guesses)

    def label_kernel(self) -> NDArray:
        """Returns 1 for two training rows of one class, else 0."""
        return (self.train_y[:, None] == self.train_y[None, :]).astype(float)


def kernel_error(prior: Prior, x: NDArray) -> tuple[float, float]:
    """Returns the relative Frobenius error of the sampled kernel, and what theory expects."""
    exact = prior_kernel(prior, x, x)
    phi = PriorFeatures(prior, x.shape[1])(x.astype(np.float32)).numpy().astype(float)
    error = np.linalg.norm(phi @ phi.T - exact) / np.linalg.norm(exact)
    rank = np.trace(exact) ** 2 / (exact**2).sum()
    return float(error), float(((1 + rank) / prior.n) ** 0.5)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[16, 64, 256, 1024])
    sizes = parser.parse_args().n
    digits = Digits()
    print(f"raw pixels, linear read-out        {digits.read_out(digits.train, digits.test):.3f}")
    print(f"one network, {max(sizes)} outputs         {digits.one_network(max(sizes), 64):.3f}")
    for activation in ("relu", "erf", "linear"):
        for n in sizes:
            prior = replace(PRIOR, n=n, activation=activation)
            print(f"{activation:<8} n={n:<6} accuracy {digits.accuracy(prior):.3f}", flush=True)
    for depth in (1, 2, 3):
        prior = replace(PRIOR, depth=depth)
        kernel = prior_kernel(prior, digits.train, digits.train)
        print(
            f"exact kernel, depth {depth}: accuracy {digits.kernel_accuracy(prior):.3f}, "
            f"alignment with labels {alignment(kernel, digits.label_kernel()):.3f}, "
            f"effective rank {effective_rank(kernel):.1f}, "
            f"mean of the centred kernel {centred(kernel).mean():.1e}"
        )
    for n in sizes:
        found, expected = kernel_error(replace(PRIOR, n=n), digits.train[:400])
        print(f"kernel from n={n:<6} relative error {found:.3f}, theory {expected:.3f}")


if __name__ == "__main__":
    main()
