from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from ctr.errors import ModuleError
from ctr.module import ModuleInfo, compose
from ctr.recipe import Recipe


@dataclass(frozen=True)
class Batches:
    """Sets the batch size."""

    size: int
    info: ClassVar[ModuleInfo] = ModuleInfo("batches", "none", extends=frozenset({"batch_size"}))

    def apply(self, recipe: Recipe) -> Recipe:
        return replace(recipe, batch_size=self.size)


@dataclass(frozen=True)
class SmallOnly(Batches):
    """Bears no batch above its own."""

    info: ClassVar[ModuleInfo] = ModuleInfo("small", "none", extends=frozenset({"batch_size"}))

    def check(self, recipe: Recipe) -> None:
        if recipe.batch_size > self.size:
            raise ModuleError(f"small: batches of {recipe.batch_size} are too large.")


def test_a_module_checks_the_recipe_that_later_modules_have_made() -> None:
    assert compose(Recipe(), [Batches(64), SmallOnly(32)]).batch_size == 32
    with pytest.raises(ModuleError, match="batches of 64 are too large"):
        compose(Recipe(), [SmallOnly(32), Batches(64)])
