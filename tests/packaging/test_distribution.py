"""What the wheel and the source archive hold."""

from __future__ import annotations

import configparser
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

PACKAGES = {"ctr", "streaming", "research_modules", "serving"}


def source_files(root: Path) -> set[str]:
    """Every file of the four packages in the checkout."""
    files = (file for name in PACKAGES for file in (root / name).rglob("*") if file.is_file())
    return {str(f.relative_to(root)) for f in files if "__pycache__" not in f.parts}


def test_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert len(top) == len(PACKAGES) + 1


def test_wheel_holds_every_source_and_data_file(wheel: Path, repo_root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped == source_files(repo_root)


def test_wheel_carries_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("licenses/LICENSE"))
        assert "Apache License" in archive.read(name).decode()


def test_entry_points_lead_to_modules_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (file,) = (n for n in names if n.endswith(".dist-info/entry_points.txt"))
        points = configparser.ConfigParser(delimiters=("=",))
        points.read_string(archive.read(file).decode())
    values = [value for group in points.sections() for value in points[group].values()]
    modules = {value.partition(":")[0].replace(".", "/") for value in values}
    missing = {m for m in modules if not {f"{m}.py", f"{m}/__init__.py"} & names}
    assert values
    assert not missing


def test_sdist_can_be_built_and_tested(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "requirements.lock", "Makefile", "LICENSE", "README.md"} <= names
    assert {"tests/conftest.py", "ctr/cli.py", "docs/architecture.md"} <= names


def test_installed_entry_points_are_those_of_pyproject(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    declared = {
        (group, *item) for group, e in project["entry-points"].items() for item in e.items()
    }
    installed = {
        (point.group, point.name, point.value)
        for point in metadata.distribution("online-ctr").entry_points
        if point.group != "console_scripts"
    }
    hint = "they are frozen at installation: pip install --no-deps -e . (or make setup) renews them"
    assert installed == declared, hint


def test_lock_pins_every_requirement_by_hash_and_names_no_host(repo_root: Path) -> None:
    lines = (repo_root / "requirements.lock").read_text().splitlines()
    pins = [number for number, line in enumerate(lines) if line[:1].isalnum()]
    assert len(pins) > 50
    assert all("==" in lines[n] and "--hash=" in lines[n + 1] for n in pins)
    assert not [line for line in lines if "://" in line or line.startswith("-")]
