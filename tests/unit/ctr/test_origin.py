from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from ctr import origin
from ctr.errors import ConfigError


def plant(folder: Path, names: tuple[str, ...] = origin.PACKAGES) -> dict[str, ModuleSpec]:
    """Four packages as the import system would find them in ``folder``."""
    specs = {}
    for name in names:
        file = folder / name / "__init__.py"
        file.parent.mkdir(parents=True)
        file.write_text('DIST = "online-ctr"\n')
        specs[name] = ModuleSpec(name, None, origin=str(file))
    return specs


def test_one_folder_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(origin, "find_spec", plant(tmp_path).get)
    assert origin.check_origins() == tmp_path.resolve()


@pytest.mark.parametrize("name", ["streaming", "research_modules", "serving"])
def test_another_folder_is_named_with_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    specs = plant(tmp_path / "ours") | plant(tmp_path / "theirs", (name,))
    monkeypatch.setattr(origin, "find_spec", specs.get)
    with pytest.raises(ConfigError) as caught:
        origin.check_origins()
    assert str(tmp_path / "ours" / "ctr" / "__init__.py") in str(caught.value)
    assert str(tmp_path / "theirs" / name / "__init__.py") in str(caught.value)


def test_another_distribution_in_the_same_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(origin, "find_spec", plant(tmp_path).get)
    (tmp_path / "serving" / "__init__.py").write_text('DIST = "online-ctr-of-others"\n')
    with pytest.raises(ConfigError, match="overwritten"):
        origin.check_origins()


def test_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    specs = plant(tmp_path)
    del specs["serving"]
    monkeypatch.setattr(origin, "find_spec", specs.get)
    with pytest.raises(ConfigError, match="'serving' of online-ctr is not installed"):
        origin.check_origins()


def test_folder_without_init(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    specs = plant(tmp_path)
    specs["streaming"] = ModuleSpec("streaming", None, is_package=True)
    specs["streaming"].submodule_search_locations = [str(tmp_path / "elsewhere")]
    monkeypatch.setattr(origin, "find_spec", specs.get)
    with pytest.raises(ConfigError, match=r"without __init__\.py .*elsewhere"):
        origin.check_origins()
