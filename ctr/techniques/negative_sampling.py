"""Fewer of the examples that were not clicked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Block
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.sampling import check_rate, with_rule


@dataclass(frozen=True)
class NegativeRule:
    """Keeps rows without any positive label at ``rate``."""

    rate: float = 0.25

    def rates(self, rows: Block) -> NDArray[np.float64]:
        """Returns float64[n]."""
        return np.where((rows.labels == 1.0).any(axis=1), 1.0, self.rate)


@dataclass(frozen=True)
class NegativeSamplingModule:
    """Keeps every example with a positive label and a share of the others, at weight 1 / rate.

    Dropped examples are never encoded or learned, which is what they would have cost. Unweighted,
    this would shift the intercept by ``-ln(rate)``; weighted, it is unbiased.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.3, class rebalancing.
    Deviations: none known; the paper withholds its rates.
    Reduces to: the base with ``rate = 1``.

    Attributes:
        rate: Share of the negatives that is kept, in (0, 1]. Below 0.05 weights get so large that
            steps become erratic.
    """

    rate: float = 0.25
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="negative_sampling",
        paper="On the Factory Floor (arXiv:2209.05310), section 3.3",
        extends=frozenset({"sampler"}),
    )

    def __post_init__(self) -> None:
        check_rate(self.rate, "negative_sampling")

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with this rule added to its sampler."""
        return replace(recipe, sampler=with_rule(recipe.sampler, NegativeRule(self.rate)))
