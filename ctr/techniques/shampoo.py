"""Distributed Shampoo for the dense layers of the tower."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from ctr.errors import ConfigError
from ctr.module import ModuleInfo
from ctr.optimizers import KerasOptimizer
from ctr.optimizers.shampoo import Shampoo, ShampooSettings
from ctr.recipe import Recipe


@dataclass(frozen=True)
class ShampooTower(ShampooSettings):
    """Puts :class:`Shampoo` in the place of the tower's AdaGrad and takes over its step size.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.2; Anil et al. 2020, "Scalable
    second order optimization for deep learning" (arXiv:2002.09018).
    Deviations: blocks are the diagonal blocks of a layer's two statistics, not tiles of the layer
    with statistics of their own. Roots come from an eigendecomposition (float64), not from a
    coupled Newton iteration. N, the block size and the momentum are not given in the paper.
    Reduces to: AdaGrad while there are no roots; with a single statistic and a small ridge, the
    orthogonal polar factor of the gradient in AdaGrad's size.

    Attributes:
        rate: Learning rate; 0 keeps that of the recipe's AdaGrad.
    """

    rate: float = 0.0

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="shampoo",
        paper="On the Factory Floor (arXiv:2209.05310), section 4.2",
        extends=frozenset({"optimizer"}),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate < 0.0:
            raise ConfigError(
                f"shampoo: rate must be at least 0 (0 keeps the recipe's), received {self.rate}."
            )

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
        settings = {f.name: getattr(self, f.name) for f in fields(ShampooSettings)}
        rate = self.rate or tower.rate
        shampoo = Shampoo(**settings, rate=rate, initial_accumulator=tower.initial_accumulator)
        return replace(recipe, optimizer=replace(recipe.optimizer, tower=shampoo))
