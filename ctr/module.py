"""The plug-in contract: a research module turns one recipe into another and says how.

A module is a frozen dataclass of hyper-parameters with ``info`` and ``apply``. It declares which
slots of the recipe it *replaces* (exclusive) or *extends* (stackable); :func:`compose` compares
the declaration with what really changed. One general rule thus stands in for every "X does not
work with Y".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, runtime_checkable

from ctr.errors import ModuleError
from ctr.recipe import Recipe

#: Fields of a recipe, by name.
SLOTS = tuple(f.name for f in fields(Recipe))


@dataclass(frozen=True)
class ModuleInfo:
    """What a module says about itself.

    Attributes:
        name: Short name, as in experiment files.
        paper: Title (arXiv id), section, equation.
        replaces: Slots whose former content it discards; no two modules may replace one slot.
        extends: Slots that it wraps or adds to.
        needs: Capabilities (protocols or classes) that the final recipe's model must offer.
        columns: Side columns that the stream must carry.
    """

    name: str
    paper: str
    replaces: frozenset[str] = frozenset()
    extends: frozenset[str] = frozenset()
    needs: tuple[type, ...] = ()
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted((self.replaces | self.extends) - set(SLOTS))
        if unknown:
            raise ModuleError(
                f"module {self.name!r} names slots that a recipe does not have: "
                f"{', '.join(unknown)}. Known: {', '.join(SLOTS)}."
            )


@runtime_checkable
class ResearchModule(Protocol):
    """A frozen dataclass of hyper-parameters with these two members."""

    info: ClassVar[ModuleInfo]

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the changed recipe; pure."""
        ...


@runtime_checkable
class ChecksRecipe(Protocol):
    """What a module may offer that cannot say by slots alone what it does not work with."""

    def check(self, recipe: Recipe) -> None:
        """Raises ModuleError if the final recipe holds something the module cannot bear."""
        ...


def compose(base: Recipe, modules: Iterable[ResearchModule]) -> Recipe:
    """Applies modules in order; later ones see what earlier ones made.

    Raises:
        ModuleError: a module changed a slot it did not declare, two modules replace the same
            slot, a module replaces what another one extended, the final model lacks a
            capability that a module needs, or a module's own check of the recipe fails.
    """
    recipe = base
    modules = list(modules)
    replaced: dict[str, str] = {}
    extended: dict[str, str] = {}
    for module in modules:
        info, new = module.info, module.apply(recipe)
        changed = {s for s in SLOTS if getattr(new, s) is not getattr(recipe, s)}
        undeclared = sorted(changed - info.replaces - info.extends)
        if undeclared:
            raise ModuleError(
                f"module {info.name!r} changed {', '.join(undeclared)} without declaring it. "
                "Add the slot to `replaces` or `extends` of its ModuleInfo."
            )
        for slot in sorted(changed & info.replaces):
            owner = replaced.get(slot) or extended.get(slot)
            if owner is not None:
                raise ModuleError(
                    f"modules {owner!r} and {info.name!r} cannot be combined: {info.name!r} "
                    f"replaces the {slot}, which {owner!r} has already set. Use one of them, or "
                    f"put {info.name!r} first if {owner!r} only extends it."
                )
            replaced[slot] = info.name
        extended |= dict.fromkeys(sorted(changed & info.extends), info.name)
        recipe = new
    _check_needs(recipe, modules)
    for module in modules:
        if isinstance(module, ChecksRecipe):
            module.check(recipe)
    return recipe


def _check_needs(recipe: Recipe, modules: Iterable[ResearchModule]) -> None:
    for module in modules:
        for need in module.info.needs:
            if not isinstance(recipe.model, need):
                raise ModuleError(
                    f"module {module.info.name!r} needs a model that is {need.__name__}, but "
                    f"{type(recipe.model).__name__} is not. Choose another model, or make its "
                    "wrapper pass the capability on."
                )
