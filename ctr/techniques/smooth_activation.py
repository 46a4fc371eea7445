"""Smooth activations in place of ReLU, for predictions that differ less between retrainings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.models.activations import check_activation
from ctr.models.deep import deep_part, with_deep_part
from ctr.module import ModuleInfo
from ctr.recipe import Recipe


@dataclass(frozen=True)
class Smelu:
    """Hidden layers with SmeLU: exact zero, a quadratic bend of width ``2 * beta``, identity.

    Paper: Shamir, Lin, Coviello 2020, "Smooth activations and reproducibility in deep networks"
    (arXiv:2010.09931); "On the Factory Floor" (arXiv:2209.05310), section 5.
    Deviations: the paper does not give its ``beta``; one serves all layers.
    Reduces to: ReLU as ``beta`` goes to 0.

    Attributes:
        beta: Half width of the bend, in the units of a pre-activation. Wider is more
            reproducible and, beyond some width, less accurate.
    """

    beta: float = 0.5
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="smelu",
        paper="On the Factory Floor (arXiv:2209.05310), section 5; arXiv:2010.09931",
        extends=frozenset({"model"}),
    )

    def __post_init__(self) -> None:
        check_activation("smelu", self.beta)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with SmeLU in all hidden layers."""
        return _activated(recipe, self.info.name, "smelu", self.beta)


@dataclass(frozen=True)
class HiddenActivation:
    """Hidden layers with any activation by name: smelu, softplus, swish, gelu, tanh or relu.

    Paper: Shamir, Lin, Coviello 2020, "Smooth activations and reproducibility in deep networks"
    (arXiv:2010.09931), which compares this family.
    Deviations: ``beta`` is the width of the bend for all of them, the inverse of the usual factor
        inside swish, gelu and softplus, so that one number means about the same in each.
    Reduces to: ReLU as ``beta`` goes to 0.

    Attributes:
        name: The activation.
        beta: Width of the bend of a smooth one.
    """

    name: str = "swish"
    beta: float = 0.5
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="activation",
        paper="Smooth activations and reproducibility in deep networks (arXiv:2010.09931)",
        extends=frozenset({"model"}),
    )

    def __post_init__(self) -> None:
        check_activation(self.name, self.beta)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with this activation in all hidden layers."""
        return _activated(recipe, self.info.name, self.name, self.beta)


def _activated(recipe: Recipe, module: str, name: str, beta: float) -> Recipe:
    deep = replace(deep_part(recipe.model, module), activation=name, beta=beta)
    return replace(recipe, model=with_deep_part(recipe.model, deep))
