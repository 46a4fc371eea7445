"""Every installed research module keeps the public contract, on the tiny recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from ctr import registry
from ctr.config import override
from ctr.fields import from_table, read_toml
from ctr.harness.arms import build_module
from ctr.harness.experiment import ModuleUse
from ctr.module import compose
from ctr.testing import CHECKS, Check, module_checks, tiny_recipe

PAGE = Path(__file__).with_name("modules.toml")
NEEDS = read_toml(PAGE, "page of needs")


@dataclass(frozen=True)
class Needs:
    """What a module needs beyond its defaults; see the page."""

    set: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[ModuleUse, ...] = ()
    base: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def checks(name: str) -> dict[str, Check]:
    """The checks of one module, whose learners are dropped when the next module's turn comes."""
    needs = from_table(Needs, NEEDS.get(name, {}), f"{PAGE}, [{name}]")
    recipe = override(tiny_recipe(), needs.base)
    base = compose(recipe, [build_module(use) for use in needs.after])
    module = build_module(ModuleUse(name, needs.set))
    return {check.name: check for check in module_checks(module, base, needs.labels)}


@pytest.mark.parametrize(
    ("name", "check"), [(name, check) for name in registry.available() for check in CHECKS]
)
def test_module(name: str, check: str) -> None:
    checks(name)[check]()


def test_needs_are_those_of_installed_modules() -> None:
    assert set(NEEDS) <= set(registry.available())
