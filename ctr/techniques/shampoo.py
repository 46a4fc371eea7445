"""Distributed Shampoo for the dense layers of the tower."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.errors import ConfigError
from ctr.module import ModuleInfo
from ctr.optimizers import KerasOptimizer
from ctr.optimizers.shampoo import Shampoo
from ctr.recipe import Recipe


@dataclass(frozen=True)
class ShampooTower:
    """Puts :class:`Shampoo` in the place of the tower's AdaGrad and takes over its step size.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.2; Anil et al. 2020, "Scalable
    second order optimization for deep learning" (arXiv:2002.09018).
    Deviations: blocks are the diagonal blocks of a layer's two statistics, not tiles of the layer
    with statistics of their own. Roots come from an eigendecomposition (float64), not from a
    coupled Newton iteration. N, the block size and the momentum are not given in the paper.
    Reduces to: AdaGrad while there are no roots; with a single statistic and a small ridge, the
    orthogonal polar factor of the gradient in AdaGrad's size.

    Attributes:
        block: Largest diagonal block of a statistic.
        every: Steps between two roots, N; rounded up to whole launches.
        momentum: Nesterov momentum on the preconditioned gradient; 0 switches it off.
        ridge: Shift of a statistic's eigenvalues, relative to the largest one.
        statistics_every: Steps between two additions to the statistics.
        decay: Below 1, statistics are averages that forget; 1 sums.
        warmup: Steps over which the direction moves from AdaGrad's to Shampoo's.
        rate: Learning rate; 0 keeps that of the recipe's AdaGrad.
    """

    block: int = 32
    every: int = 100
    momentum: float = 0.9
    ridge: float = 1e-6
    statistics_every: int = 10
    decay: float = 1.0
    warmup: int = 1000
    rate: float = 0.0

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="shampoo",
        paper="On the Factory Floor (arXiv:2209.05310), section 4.2",
        extends=frozenset({"optimizer"}),
    )

    def __post_init__(self) -> None:
        if self.rate < 0.0:
            raise ConfigError(
                f"shampoo: rate must be at least 0 (0 keeps the recipe's), received {self.rate}."
            )
        self._optimizer(self.rate or 1.0, 0.0)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with another optimizer for the tower.

        Raises:
            ConfigError: the tower's optimizer is not AdaGrad.
        """
        tower = recipe.optimizer.tower
        if not isinstance(tower, KerasOptimizer) or tower.name != "Adagrad":
            found = getattr(tower, "name", type(tower).__name__)
            raise ConfigError(
                f"shampoo takes its step sizes from AdaGrad, but the tower's optimizer is {found}. "
                "Leave optimizer.tower at Adagrad, or do without shampoo."
            )
        if tower.clip_norm or tower.weight_decay:
            raise ConfigError(
                "shampoo takes neither clip_norm nor weight_decay of optimizer.tower. Set both "
                "to 0."
            )
        shampoo = self._optimizer(self.rate or tower.rate, tower.initial_accumulator)
        return replace(recipe, optimizer=replace(recipe.optimizer, tower=shampoo))

    def _optimizer(self, rate: float, initial_accumulator: float) -> Shampoo:
        return Shampoo(
            rate, initial_accumulator, self.block, self.every, self.statistics_every,
            self.momentum, self.ridge, self.decay, self.warmup,
        )  # fmt: skip
