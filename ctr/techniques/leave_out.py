"""Leave-group-out: how much worse is the stream predicted without a group of features?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.models.leave_out import LeaveOut
from ctr.module import ModuleInfo
from ctr.recipe import Recipe


@dataclass(frozen=True)
class LeaveOutFeatures:
    """Hides features from the model, so that a replay tells what they are worth.

    Paper: none; the ablation that every study of features runs, here on paired runs.
    Deviations: the calibrator still knows the slices of an example, as it stands after the model.
    Reduces to: the base on a schema without these features.

    Attributes:
        features: Names of the features that the model does not see.
    """

    features: Sequence[str] = ()

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="leave_out",
        paper="none: leave-group-out ablation",
        extends=frozenset({"model"}),
    )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with a model that does not see the features."""
        return replace(recipe, model=LeaveOut(recipe.model, tuple(self.features)))
