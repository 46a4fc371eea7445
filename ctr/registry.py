"""Finds research modules: installed ones by entry point, others as ``package.module:Class``."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ctr.errors import ModuleError, nearest

#: Entry points of this group name research modules.
GROUP = "ctr.research_modules"


def available() -> dict[str, EntryPoint]:
    """Returns the installed modules by name, without importing them.

    Raises:
        ModuleError: two distributions offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise ModuleError(
                f"two research modules are called {point.name!r}: {other.value} and "
                f"{point.value}. Uninstall one of their distributions."
            )
        found[point.name] = point
    return found


def load(name: str) -> type[Any]:
    """Returns the class of a module by entry-point name or ``package.module:Class``.

    Raises:
        ModuleError: there is none, it cannot be imported, or it is no research module.
    """
    if ":" in name:
        cls = _import(name, *name.split(":", 1))
    else:
        known = available()
        if name not in known:
            raise ModuleError(
                f"no research module {name!r}: {nearest(name, known)}. For one that is not "
                "installed, write package.module:Class."
            )
        try:
            cls = known[name].load()
        except Exception as error:
            raise ModuleError(f"research module {name!r} cannot be loaded: {error}") from error
    if not (isinstance(cls, type) and hasattr(cls, "info") and hasattr(cls, "apply")):
        raise ModuleError(f"{name} is no research module: it has no `info` or no `apply`.")
    return cls


def _import(name: str, module: str, attribute: str) -> Any:
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModuleError(f"{name} cannot be imported: {error}") from error
