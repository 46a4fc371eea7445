from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import ctr.parts
from ctr.config import class_name, from_plain, override, to_plain
from ctr.errors import ConfigError
from ctr.optimizers import Ftrl
from ctr.parts import known_parts
from ctr.recipe import RECIPES, Recipe, named_recipe


@dataclass(frozen=True)
class Focal:
    gamma: float = 2.0


def through_json(config: object) -> object:
    return json.loads(json.dumps(to_plain(config)))


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_come_back(name: str) -> None:
    recipe = named_recipe(name)
    assert from_plain(through_json(recipe), known_parts()) == recipe


def test_changed_fields_come_back_with_their_types() -> None:
    recipe = override(named_recipe("mlp"), ["model.hidden=[8, 4]", "init_scale=1"])
    recipe = Recipe(model=recipe.model, init_scale=recipe.init_scale)
    back = from_plain(through_json(recipe), known_parts())
    assert back == recipe
    assert back.model.hidden == (8, 4)
    assert isinstance(back.init_scale, float)


def test_every_row_optimizer_is_known() -> None:
    assert from_plain(to_plain(Ftrl(l1=0.5)), known_parts()) == Ftrl(l1=0.5)


def test_parts_of_a_plug_in_are_known_while_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = through_json(Recipe(loss=Focal(3.0)))
    with pytest.raises(ConfigError, match=r"no class '.*:Focal'.*plug-in"):
        from_plain(plain, known_parts())

    def broken() -> type:
        raise RuntimeError("cannot start")

    module = SimpleNamespace(Focal=Focal, Path=dict)
    monkeypatch.setitem(ctr.parts.sys.modules, Focal.__module__, module)
    points = [
        SimpleNamespace(name="bad", load=broken),
        SimpleNamespace(name="x", load=lambda: Focal),
    ]
    monkeypatch.setattr(ctr.parts, "entry_points", lambda group: points)
    assert from_plain(plain, known_parts()) == Recipe(loss=Focal(3.0))


def test_a_strangers_class_is_named_with_its_module() -> None:
    assert class_name(Recipe) == "Recipe"
    assert class_name(Focal) == f"{__name__}:Focal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "Recipee"}, "did you mean 'Recipe'"),
        ({"class": "os:system"}, "no class 'os:system'"),
        ({"batchsize": 1}, "no field 'batchsize': did you mean 'batch_size'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_what_is_not_known_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain({**to_plain(Recipe()), **change}, known_parts(), "run.json")


def test_a_missing_field_without_default_is_named() -> None:
    @dataclass(frozen=True)
    class Needs:
        rate: float

    with pytest.raises(ConfigError, match="rate"):
        from_plain({"class": "Needs"}, {"Needs": Needs})
