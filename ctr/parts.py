"""The classes a recipe may be made of: those of the core and those of installed plug-ins."""

from __future__ import annotations

import dataclasses
import logging
import sys
from importlib.metadata import entry_points
from types import ModuleType

from ctr import calibration, losses, models, optimizers, recipe, sampling, schedules, update
from ctr.config import class_name
from ctr.registry import GROUP

log = logging.getLogger(__name__)

_CORE = (calibration, losses, models, optimizers, recipe, sampling, schedules, update)


def known_parts() -> dict[str, type]:
    """Returns every dataclass of the core's slots and of the plug-ins' files, by class name."""
    modules = [*_CORE, *_plug_ins()]
    return {name: part for module in modules for name, part in _dataclasses(module).items()}


def _plug_ins() -> list[ModuleType]:
    found = []
    for point in entry_points(group=GROUP):
        try:
            plug_in = point.load()
        except Exception as error:  # a third party's file may fail in any way
            log.warning("plug-in %s cannot be imported: %s", point.name, error)
            continue
        # The file that holds a research module also holds the parts it puts into recipes.
        found.append(sys.modules[plug_in.__module__])
    return found


def _dataclasses(module: ModuleType) -> dict[str, type]:
    members = [value for value in vars(module).values() if isinstance(value, type)]
    return {class_name(m): m for m in members if dataclasses.is_dataclass(m)}
