from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import tensorflow as tf

from ctr.errors import ModuleError
from ctr.losses import LogLoss
from ctr.models import Mlp
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.testing import Check, module_checks, tiny_recipe


@dataclass(frozen=True)
class Scaled(LogLoss):
    """A loss with a factor."""

    factor: float = 1.0

    def __call__(self, forward: Any, batch: Any) -> Any:
        return self.factor * super().__call__(forward, batch)


@dataclass(frozen=True)
class Good:
    """Paper: none. Deviations: none. Reduces to: the base at factor 1."""

    factor: float = 0.5
    info: ClassVar[ModuleInfo] = ModuleInfo("good", "", replaces=frozenset({"loss"}))

    def apply(self, recipe: Recipe) -> Recipe:
        return replace(recipe, loss=Scaled(self.factor))


def base() -> Recipe:
    return replace(tiny_recipe(), model=Mlp(dim=4, hidden=(8,)))


def checks(module: Any) -> dict[str, Check]:
    return {check.name: check for check in module_checks(module, base())}


@pytest.mark.parametrize("check", module_checks(Good(), base()), ids=str)
def test_a_good_module_passes(check: Check) -> None:
    check()


@dataclass(frozen=True)
class Silent(Good):
    "Says nothing."


@dataclass(frozen=True)
class Idle(Good):
    info: ClassVar[ModuleInfo] = ModuleInfo("idle", "", replaces=frozenset({"loss", "model"}))


@dataclass(frozen=True)
class Sneaky(Good):
    info: ClassVar[ModuleInfo] = ModuleInfo("sneaky", "", replaces=frozenset({"model"}))


CALLS: list[int] = []


@dataclass(frozen=True)
class Fickle(Good):
    def apply(self, recipe: Recipe) -> Recipe:
        CALLS.append(1)
        return replace(recipe, loss=Scaled(float(len(CALLS))))


@dataclass(frozen=True)
class Vandal(Good):
    def apply(self, recipe: Recipe) -> Recipe:
        object.__setattr__(recipe, "init_scale", recipe.init_scale * 2)
        return replace(recipe, loss=Scaled(2.0))


@pytest.mark.parametrize(
    ("module", "name", "sentence"),
    [
        (Silent(), "docstring names its paper", "lacks Paper:, Deviations:, Reduces to:"),
        (Idle(), "declared slots are those that change", "declares model but leaves it"),
        (Sneaky(), "declared slots are those that change", "changed loss without declaring"),
        (Fickle(), "apply is pure and repeatable", "different recipes for the same"),
        (Vandal(), "apply is pure and repeatable", "changed the recipe it was given"),
    ],
)
def test_broken_declarations_are_found(module: Any, name: str, sentence: str) -> None:
    with pytest.raises(ModuleError, match=sentence):
        checks(module)[name]()


@dataclass(frozen=True)
class PaddingLoss(LogLoss):
    """Divides by a batch's positives, padding included."""

    def __call__(self, forward: Any, batch: Any) -> Any:
        return super().__call__(forward, batch) / (1.0 + tf.reduce_sum(batch.labels))


@dataclass(frozen=True)
class Padded(Good):
    def apply(self, recipe: Recipe) -> Recipe:
        return replace(recipe, loss=PaddingLoss())


@dataclass(frozen=True)
class NanLoss(LogLoss):
    """Not a number once something was learned."""

    def __call__(self, forward: Any, batch: Any) -> Any:
        bad = tf.where(batch.seen > 500, float("nan"), 1.0)
        return super().__call__(forward, batch) * bad


@dataclass(frozen=True)
class Nan(Good):
    def apply(self, recipe: Recipe) -> Recipe:
        return replace(recipe, loss=NanLoss())


NOISE: list[float] = []


@dataclass(frozen=True)
class NoisyLoss(LogLoss):
    """Another factor for every learner that is built."""

    def __call__(self, forward: Any, batch: Any) -> Any:
        NOISE.append(1.0)
        return super().__call__(forward, batch) * (0.5 + 0.01 * len(NOISE))


@dataclass(frozen=True)
class Noisy(Good):
    def apply(self, recipe: Recipe) -> Recipe:
        return replace(recipe, loss=NoisyLoss())


def test_a_loss_that_sees_padding_is_found() -> None:
    found = checks(Padded())
    found["same seed, same bits"]()
    with pytest.raises(ModuleError, match="rows of weight 0 change"):
        found["padding is inert"]()


def test_numbers_that_explode_are_found() -> None:
    with pytest.raises(ModuleError, match=r"no probability|not finite"):
        checks(Nan())["finite after 50 steps"]()


def test_state_outside_of_variables_is_found() -> None:
    found = checks(Noisy())
    with pytest.raises(ModuleError, match="two runs with one seed differ in the trained value"):
        found["same seed, same bits"]()
    with pytest.raises(ModuleError, match="continued from a checkpoint differs"):
        found["a checkpoint changes nothing"]()
