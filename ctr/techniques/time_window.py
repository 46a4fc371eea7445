"""Training on a stretch of the stream only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Block
from ctr.errors import ConfigError
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.sampling import with_rule
from ctr.schedules import time_us


@dataclass(frozen=True)
class TimeWindowRule:
    """Keeps rows whose event time is in ``[start, stop)``; an empty text leaves that end open."""

    start: str = ""
    stop: str = ""

    def rates(self, rows: Block) -> NDArray[np.float64]:
        """Returns float64[n], 0 or 1."""
        inside = np.ones(len(rows.time_us), bool)
        if self.start:
            inside &= rows.time_us >= time_us(self.start)
        if self.stop:
            inside &= rows.time_us < time_us(self.stop)
        return inside.astype(np.float64)


@dataclass(frozen=True)
class TimeWindowModule:
    """Leaves out what is too old (or too new) to be worth its cost.

    What is outside is not sampled but gone: no weight makes up for it, because the past is meant
    to be forgotten. Students of a teacher that has seen a longer history need even less of it.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.3.
    Deviations: none known.
    Reduces to: the base with a window that covers the stream.

    Attributes:
        start: First ISO time that is kept, e.g. ``2024-05-01``; without a zone it is UTC.
        stop: First ISO time that is not kept any more.
    """

    start: str = ""
    stop: str = ""
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="time_window",
        paper="On the Factory Floor (arXiv:2209.05310), section 3.3",
        extends=frozenset({"sampler"}),
    )

    def __post_init__(self) -> None:
        ends = [time_us(text) for text in (self.start, self.stop) if text]
        if not ends or (len(ends) == 2 and ends[0] >= ends[1]):
            raise ConfigError(
                "time_window: give start or stop, or both with start before stop; received "
                f"{self.start!r} and {self.stop!r}."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with this rule added to its sampler."""
        rule = TimeWindowRule(self.start, self.stop)
        return replace(recipe, sampler=with_rule(recipe.sampler, rule))
