"""Fewer of the examples that were hardly looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Block
from ctr.errors import ConfigError
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.sampling import check_rate, with_rule


@dataclass(frozen=True)
class ExaminationRule:
    """Keeps rows without a positive label at ``rate`` where ``seen`` is below ``threshold``."""

    columns: ClassVar[tuple[str, ...]] = ("position",)

    seen: tuple[float, ...]
    threshold: float
    rate: float
    first: int

    def rates(self, rows: Block) -> NDArray[np.float64]:
        """Returns float64[n]."""
        place = np.clip(rows.side["position"] - self.first, 0, len(self.seen) - 1)
        unseen = np.asarray(self.seen)[place] < self.threshold
        clicked = (rows.labels == 1.0).any(axis=1)
        return np.where(unseen & ~clicked, self.rate, 1.0)


@dataclass(frozen=True)
class ExaminationSamplingModule:
    """Keeps few of the unclicked examples at positions that users hardly look at.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.3, examination-based sampling.
    Deviations: clicked examples are always kept (they have been seen); the chance of being seen
        is given by position, where the paper has a model for it.
    Reduces to: the base with ``rate = 1`` or ``threshold = 0``.

    Attributes:
        seen: Chance that a user looks at positions ``first``, ``first + 1``, ...; further ones
            have the last chance. Estimate it from shuffled pages or with ``ui_factorization``.
        threshold: Below this chance a position counts as hardly seen.
        rate: Share of those examples that is kept, in (0, 1].
        first: Number of the top position.
    """

    seen: tuple[float, ...]
    threshold: float = 0.3
    rate: float = 0.25
    first: int = 1
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="examination_sampling",
        paper="On the Factory Floor (arXiv:2209.05310), section 3.3",
        extends=frozenset({"sampler"}),
        columns=("position",),
    )

    def __post_init__(self) -> None:
        check_rate(self.rate, "examination_sampling")
        if not self.seen or not all(0.0 <= p <= 1.0 for p in self.seen):
            raise ConfigError(
                f"examination_sampling: seen needs one chance in [0, 1] per position, received "
                f"{list(self.seen)}."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with this rule added to its sampler."""
        rule = ExaminationRule(self.seen, self.threshold, self.rate, self.first)
        return replace(recipe, sampler=with_rule(recipe.sampler, rule))
