"""Step sizes that adapt themselves by exponentiated gradients, around any optimizer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ctr.errors import ModuleError
from ctr.module import ModuleInfo
from ctr.optimizers import Ftrl, KerasOptimizer
from ctr.recipe import Recipe
from ctr.update import GradientUpdate
from research_modules.eg_step_size.scale import EgScale
from research_modules.eg_step_size.update import EgUpdate

__all__ = ["EgScale", "EgStepSize", "EgUpdate"]


@dataclass(frozen=True)
class EgStepSize:
    """Multiplies every step of the recipe's optimizers by a scale that is learned on the way.

    The scale grows while gradients keep pointing along the recent steps, and shrinks while they
    point back, so a mis-set rate is made good within some hundred batches, and a shift of the
    stream raises it again.

    Paper: Amid, Anil, Fifty, Warmuth 2022, "Step-size adaptation using exponentiated gradient
    updates" (arXiv:2202.00145): scale, gains and their update rules.
    Deviations: the default is the rule normalised to a cosine, whose strength needs no tuning per
        model. The base optimizer may be any; the direction is the average of its recent steps,
        where the paper has the buffer of heavy-ball momentum (``memory = 0`` with SGD and momentum
        is the paper's). Only dense variables decide; the table follows their scales and has no
        gains. The wide part has a scale of its own. Gains are bounded.
    Reduces to: the base optimizer, bit for bit, with ``rate = 0`` and ``gain_rate = 0``.

    Attributes:
        rate: Largest change of log(scale) per batch with the cosine rule; 0 holds the scale.
        memory: Decay of the average of past steps that a gradient is compared to; 0 compares it to
            the last step alone, which is right where the optimizer has momentum of its own.
        rule: ``cosine``, or ``raw`` for the paper's inner product, whose rate has a unit.
        scope: ``group``: one scale for the wide part's dense variables and wide columns, one for
            the tower and the embeddings. ``global``: one for all, by all dense variables; the wide
            part, whose steps are the longest, then decides alone.
        tables: False leaves the table's steps as they are.
        lowest: Least scale.
        highest: Greatest scale.
        gain_rate: Rate of the gains, one per dense weight; 0 has none.
        gain_memory: Decay of the average gradient that gains compare to.
        gain_rule: ``sign`` (use about 0.01), ``cosine`` (about 10) or ``raw``, the paper's.
    """

    rate: float = 0.1
    memory: float = 0.9
    rule: str = "cosine"
    scope: str = "group"
    tables: bool = True
    lowest: float = 1e-3
    highest: float = 1e3
    gain_rate: float = 0.0
    gain_memory: float = 0.9
    gain_rule: str = "sign"

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="eg_step_size",
        paper="Step-size adaptation using exponentiated gradient updates (arXiv:2202.00145)",
        extends=frozenset({"update"}),
    )

    def __post_init__(self) -> None:
        self._update()

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with scaled steps.

        Raises:
            ModuleError: another update is in place, or an optimizer computes its weights anew, so
                that its steps cannot be scaled.
        """
        if type(recipe.update) is not GradientUpdate:
            raise ModuleError(
                "module 'eg_step_size' scales the one gradient step that a batch makes, but the "
                f"update is {type(recipe.update).__name__}. Use one of the two."
            )
        for name in ("head", "tower", *(("embedding", "linear") if self.tables else ())):
            _check(name, getattr(recipe.optimizer, name))
        return replace(recipe, update=self._update())

    def _update(self) -> EgUpdate:
        scale = EgScale(
            self.rate, self.memory, self.rule, self.lowest, self.highest,
            self.gain_rate, self.gain_memory, self.gain_rule,
        )  # fmt: skip
        return EgUpdate(scale, self.scope, self.tables)


def _check(name: str, optimizer: Any) -> None:
    if isinstance(optimizer, Ftrl) or getattr(optimizer, "name", "") == "Ftrl":
        raise ModuleError(
            f"module 'eg_step_size' cannot scale the steps of FTRL (optimizer.{name}): it computes "
            "weights anew from its sums. Use AdaGrad there."
        )
    if isinstance(optimizer, KerasOptimizer) and optimizer.weight_decay:
        raise ModuleError(
            f"module 'eg_step_size' would take the weight decay of optimizer.{name} for a part of "
            "the gradient's direction. Set its weight_decay to 0."
        )
