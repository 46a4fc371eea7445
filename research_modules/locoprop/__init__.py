"""LocoProp: every dense layer learns a small local problem per batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.api import Layered
from ctr.errors import ModuleError
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from research_modules.locoprop.local import LocalRule
from research_modules.locoprop.update import LocoPropUpdate

__all__ = ["LocalRule", "LocoProp", "LocoPropUpdate"]

#: Activations that fall somewhere: their matching loss would not be convex.
_FALLING = ("swish", "gelu")


@dataclass(frozen=True)
class LocoProp:
    """Goes beyond the gradient step by ``steps`` local ones per layer, for one backward pass.

    Each dense layer gets the target "its output, moved by the backpropagated error", and its own
    inputs; the first local step is the gradient step, the others use the same forward and backward
    pass. All layers work at a time on the same old values. Table, cross layers and the wide part
    take their ordinary gradient step.

    Paper: Amid, Anil, Warmuth 2022, "LocoProp: Enhancing BackProp via Local Loss Optimization"
    (arXiv:2106.06199), LocoProp-S and LocoProp-M.
    Deviations: ``gamma`` is per example and local gradients are means, so that neither depends on
        the batch size (the published ``gamma`` divided by the batch size). No proximal term, as in
        the published code. Steps shrink by scaling what the optimizer did. A layer whose local
        loss has risen returns to its first step. Weights of examples weigh the local problems.
    Reduces to: the recipe's gradient step with ``steps = 1`` and ``gamma = 1``.

    Attributes:
        mode: ``matching``: the loss that fits the activation, on outputs (LocoProp-M).
            ``squared``: the squared loss, on preactivations (LocoProp-S).
        steps: Local steps per batch, T.
        gamma: How far targets lie along the error; at a logistic output with matching loss, 1
            makes the label itself the target.
        floor: Step sizes fall linearly over the local steps, to this share of the first one.
        guard: True takes a layer back to its first step where the others have raised its loss.
    """

    mode: str = "matching"
    steps: int = 5
    gamma: float = 1.0
    floor: float = 0.25
    guard: bool = True

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="locoprop",
        paper="LocoProp: Enhancing BackProp via Local Loss Optimization (arXiv:2106.06199)",
        replaces=frozenset({"update"}),
        needs=(Layered,),
    )

    def __post_init__(self) -> None:
        self._rule()

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with local learning in its dense layers.

        Raises:
            ModuleError: the hidden activation has no convex matching loss.
        """
        activation = getattr(recipe.model, "layer_activation", "")
        if self.mode == "matching" and activation in _FALLING:
            raise ModuleError(
                f"module 'locoprop': {activation} falls for negative inputs, so its matching loss "
                "is not convex. Use relu, smelu, softplus or tanh, or mode = 'squared'."
            )
        return replace(recipe, update=LocoPropUpdate(self._rule()))

    def _rule(self) -> LocalRule:
        return LocalRule(self.mode, self.steps, self.gamma, self.floor, self.guard)
