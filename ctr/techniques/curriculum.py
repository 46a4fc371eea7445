"""A common schedule for the weights of auxiliary losses."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

from ctr.errors import ModuleError
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.schedules import Ramp


@dataclass(frozen=True)
class CurriculumModule:
    """Puts one ramp into every part of the loss that has one, whatever modules made them.

    All losses at full weight from the first example gave outlier gradients and divergence in the
    paper's system; it starts with the log loss and adds the others gradually.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.1.3.
    Deviations: shape and length are ours (linear); the paper gives neither.
    Reduces to: full weights from the start with ``length = 0`` and ``start = 0``.

    Attributes:
        length: Examples or hours from 0 to the full weight.
        start: Examples or hours before the weights begin to rise.
        unit: ``examples`` or ``hours``.
        since: With hours: the ISO time they are counted from.
        only: Names of loss classes to schedule, e.g. ``["RankLoss"]``; empty means all.
    """

    length: float = 20_000.0
    start: float = 0.0
    unit: str = "examples"
    since: str = ""
    only: tuple[str, ...] = ()
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="curriculum",
        paper="On the Factory Floor (arXiv:2209.05310), section 4.1.3",
        extends=frozenset({"loss"}),
    )

    def __post_init__(self) -> None:
        self._ramp()

    def _ramp(self) -> Ramp:
        return Ramp(self.length, self.start, self.unit, self.since)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with this schedule in its loss.

        Raises:
            ModuleError: the loss has nothing to schedule, or not what ``only`` names.
        """
        found: set[str] = set()
        loss = self._scheduled(recipe.loss, found)
        missing = sorted(set(self.only) - found) if self.only else []
        if missing or not found:
            what = ", ".join(missing) or "loss with a ramp"
            raise ModuleError(
                f"curriculum: the recipe's loss has no {what}. Put the modules that add losses "
                "before this one."
            )
        return replace(recipe, loss=loss)

    def _scheduled(self, part: Any, found: set[str]) -> Any:
        if not is_dataclass(part) or isinstance(part, type):
            return part
        changed = {f.name: self._scheduled(getattr(part, f.name), found) for f in fields(part)}
        name = type(part).__name__
        if isinstance(getattr(part, "ramp", None), Ramp) and (not self.only or name in self.only):
            found.add(name)
            changed["ramp"] = self._ramp()
        return replace(part, **changed)
