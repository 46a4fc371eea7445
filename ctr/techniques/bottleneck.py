"""Low-rank hidden layers: wide layers for the price of narrow ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.errors import ConfigError
from ctr.models.deep import deep_part, with_deep_part
from ctr.module import ModuleInfo
from ctr.recipe import Recipe


@dataclass(frozen=True)
class Bottleneck:
    """Hidden layers ``H = act(H' U V)``, U of m x k and V of k x n, nothing in between.

    A full layer of m x n costs ``m * n`` multiplications per example, this one ``k * (m + n)``:
    it saves where ``k < m * n / (m + n)`` (``ctr.models.layers.saves``). Layers where the rank
    saves nothing stay whole. Widening layers and putting a bottleneck in buys width at equal cost.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.1.
    Deviations: the paper gives no ranks and no initial values; U and V are drawn so that their
        product has the variance of a full layer.
    Reduces to: the full layer whose matrix is U V.

    Attributes:
        rank: k of every layer; below 1 it is the share of the layer's units.
        widen: Factor on the units of every hidden layer.
    """

    rank: float = 0.25
    widen: float = 1.0
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="bottleneck",
        paper="On the Factory Floor (arXiv:2209.05310), section 3.1",
        extends=frozenset({"model"}),
    )

    def __post_init__(self) -> None:
        whole = self.rank < 1 or float(self.rank).is_integer()
        if not (self.rank > 0 and whole and self.widen > 0):
            raise ConfigError(
                "bottleneck: rank must be a whole number or a share between 0 and 1, and widen "
                f"above 0, received {self.rank} and {self.widen}."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with bottlenecks in the tower of its model."""
        deep = deep_part(recipe.model, self.info.name)
        hidden = tuple(max(1, round(n * self.widen)) for n in deep.hidden)
        share = self.rank < 1
        ranks = tuple(max(1, round(self.rank * n if share else self.rank)) for n in hidden)
        deep = replace(deep, hidden=hidden, ranks=ranks)
        return replace(recipe, model=with_deep_part(recipe.model, deep))
