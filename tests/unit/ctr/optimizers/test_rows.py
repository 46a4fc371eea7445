from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ctr.api import Rows
from ctr.optimizers import AdaGrad, Ftrl
from ctr.table import Table

N_ROWS, DIM, TASKS = 11, 4, 2


def batches(n: int = 6, size: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids int32[B, S] full of duplicates, gradients of all columns."""
    rng = np.random.default_rng(1)
    return [
        (
            rng.integers(0, 5, (size, 3)).astype(np.int32),
            rng.normal(0.0, 0.5, (size, 3, DIM + TASKS)).astype(np.float32),
        )
        for _ in range(n)
    ]


def trained(embedding: AdaGrad | Ftrl, linear: AdaGrad | Ftrl) -> tuple[Rows, Rows]:
    """Returns the table before and after compiled updates with the gradients of ``batches``."""
    table = Table(N_ROWS, DIM, TASKS, embedding, linear, 3, 0.1, seed=4)
    before = Rows(table.embedding.numpy(), table.wide.numpy())

    @tf.function(jit_compile=True)
    def step(ids: tf.Tensor, gradients: tf.Tensor) -> None:
        rows = table.lookup(ids)
        table.update(ids, rows, Rows(gradients[..., :DIM], gradients[..., DIM:]))

    for ids, gradients in batches():
        step(ids, gradients)
    return before, Rows(table.embedding.numpy(), table.wide.numpy())


def adagrad(weights: np.ndarray, columns: slice, rate: float, start: float) -> np.ndarray:
    weights, squares = weights.astype(np.float64), np.full(weights.shape, start)
    for ids, gradients in batches():
        lines = gradients[..., columns].reshape(ids.size, -1).astype(np.float64)
        for row, g in zip(ids.reshape(-1), lines, strict=True):
            squares[row] += g * g
        for row, g in zip(ids.reshape(-1), lines, strict=True):
            weights[row] -= rate * g / np.sqrt(squares[row])
    return weights


def ftrl(weights: np.ndarray, columns: slice, config: Ftrl) -> np.ndarray:
    """Algorithm 1 of the paper per coordinate, one summed gradient per row and batch."""
    weights = weights.astype(np.float64)
    scale = config.beta / config.alpha + config.l2
    z = -weights * scale - np.sign(weights) * config.l1
    n = np.zeros_like(z)
    for ids, gradients in batches():
        lines = gradients[..., columns].reshape(ids.size, -1).astype(np.float64)
        for row in np.unique(ids):
            mine = lines[ids.reshape(-1) == row]
            more = n[row] + (mine**2).sum(axis=0)
            sigma = (np.sqrt(more) - np.sqrt(n[row])) / config.alpha
            z[row] += mine.sum(axis=0) - sigma * weights[row]
            n[row] = more
            shrunk = z[row] - np.sign(z[row]) * config.l1
            divisor = (config.beta + np.sqrt(more)) / config.alpha + config.l2
            weights[row] = np.where(np.abs(z[row]) <= config.l1, 0.0, -shrunk / divisor)
    return weights


SHRINKING = Ftrl(alpha=0.2, beta=0.5, l1=0.3, l2=0.1)


@pytest.mark.parametrize("embedding", [AdaGrad(0.1), SHRINKING])
@pytest.mark.parametrize("linear", [AdaGrad(0.3, 1.0, split_rate=True), SHRINKING])
def test_rows_follow_the_published_formulas(
    embedding: AdaGrad | Ftrl, linear: AdaGrad | Ftrl
) -> None:
    before, after = trained(embedding, linear)
    for part, (config, columns) in enumerate(
        [(embedding, slice(0, DIM)), (linear, slice(DIM, None))]
    ):
        if isinstance(config, Ftrl):
            expected = ftrl(before[part], columns, config)
        else:
            rate = config.rate / np.sqrt(3.0) if config.split_rate else config.rate
            expected = adagrad(before[part], columns, rate, config.initial_accumulator)
        np.testing.assert_allclose(after[part], expected, atol=2e-5)
        assert np.abs(after[part] - before[part])[:5].max() > 0.01


def test_untouched_rows_stay() -> None:
    before, after = trained(AdaGrad(), SHRINKING)
    assert (after.embedding[5:] == before.embedding[5:]).all()
    assert (after.wide[5:] == before.wide[5:]).all()


def test_l1_leaves_exact_zeros() -> None:
    _, after = trained(AdaGrad(), Ftrl(l1=5.0))
    assert (after.wide == 0.0).mean() > 0.5
