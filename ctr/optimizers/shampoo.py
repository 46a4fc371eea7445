"""Shampoo for dense matrices, its roots computed beside training, with AdaGrad's step sizes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.errors import ConfigError
from ctr.optimizers.inverse_root import Roots, inverse_fourth_roots
from ctr.optimizers.kronecker import Factor, Kronecker

#: What Keras' AdaGrad adds to the accumulator under the root; kept, so that both can be compared.
EPSILON = 1e-7


@dataclass(frozen=True)
class ShampooSettings:
    """What there is to set besides the step size.

    Attributes:
        block: Largest diagonal block of a statistic.
        every: Steps between two roots, N; rounded up to whole launches.
        statistics_every: Steps between two additions to the statistics.
        momentum: Nesterov momentum on the preconditioned gradient; 0 switches it off.
        ridge: Shift of a statistic's eigenvalues, relative to the largest one.
        decay: Below 1, statistics are averages that forget; 1 sums.
        warmup: Steps over which the direction moves from AdaGrad's to Shampoo's.
    """

    block: int = 32
    every: int = 100
    statistics_every: int = 10
    momentum: float = 0.9
    ridge: float = 1e-6
    decay: float = 1.0
    warmup: int = 1000

    def __post_init__(self) -> None:
        counts = {"block": self.block, "every": self.every,
                  "statistics_every": self.statistics_every}  # fmt: skip
        for name, value in counts.items():
            if value < 1:
                raise ConfigError(f"shampoo: {name} must be at least 1, received {value}.")
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(
                f"shampoo: momentum must be at least 0 and below 1, received {self.momentum}."
            )
        if not 0.0 < self.decay <= 1.0:
            raise ConfigError(
                f"shampoo: decay must be above 0 and at most 1 (1 sums), received {self.decay}."
            )
        if self.ridge <= 0.0 or self.warmup < 0:
            raise ConfigError(
                "shampoo: ridge must be above 0 and warmup at least 0, received "
                f"{self.ridge} and {self.warmup}."
            )


@dataclass(frozen=True)
class Shampoo(ShampooSettings):
    """Direction from Shampoo, step size from AdaGrad, one norm per layer.

    Matrices are preconditioned on both sides; vectors, and matrices with one column, follow plain
    AdaGrad, as everything does until the first roots arrive.

    Attributes:
        rate: Learning rate of AdaGrad, whose step sizes are taken over.
        initial_accumulator: First value of AdaGrad's accumulator.
        background: False computes roots between two launches, while nothing else runs, and uses
            them at once.
    """

    rate: float = 0.02
    initial_accumulator: float = 1e-6
    background: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate <= 0.0:
            raise ConfigError(f"shampoo: rate must be above 0, received {self.rate}.")

    def build(self, variables: Sequence[tf.Variable]) -> ShampooState:
        """Creates the slots."""
        return ShampooState(self, variables)


@dataclass(frozen=True)
class _Request:
    """Statistics whose roots are being computed."""

    statistics: list[NDArray[np.float64]]
    roots: Future[list[Roots]]


class ShampooState(tf.Module):
    """The built form of :class:`Shampoo`.

    A request for roots is a snapshot of the statistics, taken between two launches, and the roots
    are taken over at the next one: their statistics are N to 2N steps old, however long they took.
    The snapshot is part of every checkpoint, so a resumed run asks again for the same roots.
    """

    def __init__(self, config: Shampoo, variables: Sequence[tf.Variable]) -> None:
        super().__init__(name="shampoo")
        self._config = config
        self._vectors = [v for v in variables if v.shape.rank != 2 or 1 in v.shape]
        self._matrices = [v for v in variables if v.shape.rank == 2 and 1 not in v.shape]
        vectors = {v.ref() for v in self._vectors}
        self._is_vector = [v.ref() in vectors for v in variables]
        start = config.initial_accumulator
        self.vector_sums = [tf.Variable(tf.fill(v.shape, start)) for v in self._vectors]
        self.matrix_sums = [tf.Variable(tf.fill(v.shape, start)) for v in self._matrices]
        self.momenta = [tf.Variable(tf.zeros(v.shape)) for v in self._matrices if config.momentum]
        self.kronecker = [Kronecker(v.shape[0], v.shape[1], config.block) for v in self._matrices]
        self.steps = tf.Variable(tf.zeros([], tf.int64), name="steps")
        self.asked_at = tf.Variable(tf.constant(-1, tf.int64), name="asked_at")
        self.first_roots_at = tf.Variable(tf.constant(-1, tf.int64), name="first_roots_at")
        self.rejected = tf.Variable(tf.zeros([], tf.int64), name="rejected")
        self._executor = ThreadPoolExecutor(1, "shampoo")
        self._request: _Request | None = None

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Assigns new values to the variables given at build time."""
        vectors = [g for g, is_vector in zip(gradients, self._is_vector, strict=True) if is_vector]
        matrices = [
            g for g, is_vector in zip(gradients, self._is_vector, strict=True) if not is_vector
        ]
        rate = self._config.rate
        for variable, total, gradient in zip(self._vectors, self.vector_sums, vectors, strict=True):
            variable.assign_sub(rate * _adagrad(total, gradient))
        if not matrices:
            return
        sizes = [_adagrad(t, g) for t, g in zip(self.matrix_sums, matrices, strict=True)]
        norms = [_norm(size) for size in sizes]
        # A batch of padding has no gradient; momentum must not move the weights for it.
        live = tf.add_n(norms) > 0.0
        moving = tf.cast(live, tf.float32)
        blend = moving * self._blend()
        for index, (variable, gradient) in enumerate(zip(self._matrices, matrices, strict=True)):
            direction = self.kronecker[index].precondition(gradient)
            step = direction * (norms[index] / tf.maximum(_norm(direction), 1e-30))
            if self.momenta:
                step = self._accelerated(self.momenta[index], step, moving)
            size = sizes[index]
            variable.assign_sub(rate * (size + blend * (step - size)))
        due = live & (self.steps % self._config.statistics_every == 0)
        tf.cond(due, lambda: self._observe(matrices), lambda: None)
        self.steps.assign_add(tf.cast(live, tf.int64))

    def between_launches(self) -> None:
        """Takes over the roots that were asked for and asks for new ones, when N steps passed."""
        asked_at, steps = int(self.asked_at.numpy()), int(self.steps.numpy())
        if not self.kronecker or steps - max(asked_at, 0) < self._config.every:
            return
        if asked_at >= 0 and self._config.background:
            self._take_over(steps)
        self._ask(steps)
        if not self._config.background:
            self._take_over(steps)

    @property
    def factors(self) -> list[Factor]:
        """Both sides of every matrix."""
        return [side for pair in self.kronecker for side in (pair.left, pair.right)]

    def _ask(self, steps: int) -> None:
        statistics = [factor.statistics.numpy() for factor in self.factors]
        for factor, values in zip(self.factors, statistics, strict=True):
            factor.snapshot.assign(values)
        self.asked_at.assign(steps)
        answer = self._executor.submit(_roots, statistics, self._config.ridge)
        self._request = _Request(statistics, answer)

    def _take_over(self, steps: int) -> None:
        asked = [factor.snapshot.numpy() for factor in self.factors]
        request = self._request
        if request is None or not all(map(_same, asked, request.statistics)):
            # Restored from a checkpoint since it was asked.
            found = _roots(asked, self._config.ridge)
        else:
            found = request.roots.result()
        kept = sum(factor.use(roots) for factor, roots in zip(self.factors, found, strict=True))
        self.rejected.assign_add(kept)
        if int(self.first_roots_at.numpy()) < 0:
            self.first_roots_at.assign(steps)

    def _observe(self, gradients: Sequence[tf.Tensor]) -> None:
        for pair, gradient in zip(self.kronecker, gradients, strict=True):
            pair.observe(gradient, self._config.decay)

    def _blend(self) -> tf.Tensor:
        since = tf.cast(self.steps - self.first_roots_at + 1, tf.float32)
        share = tf.minimum(since / max(self._config.warmup, 1), 1.0)
        return tf.where(self.first_roots_at < 0, 0.0, share)

    def _accelerated(self, momentum: tf.Variable, step: tf.Tensor, moving: tf.Tensor) -> tf.Tensor:
        mu = self._config.momentum
        change = (1.0 - mu) * (step - momentum)
        momentum.assign_add(moving * change)
        return step + mu * (momentum.read_value() - step)


def _adagrad(total: tf.Variable, gradient: tf.Tensor) -> tf.Tensor:
    total.assign_add(gradient * gradient)
    return gradient * tf.math.rsqrt(total + EPSILON)


def _norm(matrix: tf.Tensor) -> tf.Tensor:
    # Compilers keep the order of a sum and so add one number at a time; halves added to halves
    # are added as vectors (measured: a third of the time, and two norms are a tenth of a step).
    squares = tf.reshape(matrix * matrix, [-1])
    total = tf.zeros([])
    while squares.shape[0] > 1024:
        half = squares.shape[0] // 2
        total += tf.reduce_sum(squares[2 * half :])
        squares = squares[:half] + squares[half : 2 * half]
    return tf.sqrt(total + tf.reduce_sum(squares))


def _roots(statistics: Sequence[NDArray[np.float64]], ridge: float) -> list[Roots]:
    """Returns the roots of each stack; stacks of one width are computed together."""
    found: dict[int, Roots] = {}
    for width in {blocks.shape[-1] for blocks in statistics}:
        places = [i for i, blocks in enumerate(statistics) if blocks.shape[-1] == width]
        roots = inverse_fourth_roots(np.concatenate([statistics[i] for i in places]), ridge)
        ends = np.cumsum([len(statistics[i]) for i in places])[:-1]
        parts = (np.split(part, ends) for part in roots)
        found |= {i: Roots(*pair) for i, *pair in zip(places, *parts, strict=True)}
    return [found[i] for i in range(len(statistics))]


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return np.array_equal(a, b, equal_nan=True)
