"""Rules for the repository that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streaming.source import load_source

PACKAGES = ("ctr", "streaming", "research_modules", "serving")
BANNED = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_LINES = {"packages": 400, "tests": 600}


def python_files(root: Path, *folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]


@pytest.mark.parametrize(("kind", "folders"), [("packages", PACKAGES), ("tests", ("tests",))])
def test_files_stay_short(repo_root: Path, kind: str, folders: tuple[str, ...]) -> None:
    files = python_files(repo_root, *folders)
    long = {
        str(file.relative_to(repo_root)): n
        for file in files
        if (n := len(file.read_text().splitlines())) > MAX_LINES[kind]
    }
    assert files
    assert not long


def test_names_say_something(repo_root: Path) -> None:
    parts = {
        part
        for file in python_files(repo_root, *PACKAGES, "tests")
        for part in file.relative_to(repo_root).with_suffix("").parts
    }
    assert not parts & BANNED


def test_tests_are_not_importable(repo_root: Path) -> None:
    assert not list((repo_root / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_says_whose_it_is(repo_root: Path, package: str) -> None:
    text = (repo_root / package / "__init__.py").read_text()
    assert 'DIST = "online-ctr"' in text.splitlines()


@pytest.mark.parametrize("page", ["README.md", "docs/contributing.md"])
def test_commands_in_the_documentation_exist(repo_root: Path, page: str) -> None:
    text = (repo_root / page).read_text()
    targets = set(re.findall(r"^([a-z]+):", (repo_root / "Makefile").read_text(), re.MULTILINE))
    groups = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["entry-points"]
    used_targets = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE))
    used_verbs = set(re.findall(r"(?:`|^)octr ([a-z]+)", text, re.MULTILINE))
    assert used_targets
    assert used_targets <= targets
    assert used_verbs <= set(groups["ctr.commands"])


def test_readme_names_every_verb(repo_root: Path) -> None:
    text = (repo_root / "README.md").read_text()
    groups = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["entry-points"]
    assert not {verb for verb in groups["ctr.commands"] if f"octr {verb}" not in text}


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/contributing.md"])
def test_links_lead_somewhere(repo_root: Path, page: str) -> None:
    file = repo_root / page
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text())
    assert not [link for link in links if not (file.parent / link).exists()]


def test_schema_in_the_readme_is_valid(repo_root: Path, tmp_path: Path) -> None:
    text = re.search(r"```toml\n(.*?)```", (repo_root / "README.md").read_text(), re.DOTALL)
    assert text is not None
    file = tmp_path / "schema.toml"
    file.write_text(text.group(1))
    schema, source = load_source(file)
    assert [label.name for label in schema.labels] == ["click"]
    assert source.event_time == "ms"


def test_help_needs_neither_tensorflow_nor_beam() -> None:
    code = (
        "import sys\n"
        "from ctr.verbs import load_verbs\n"
        "from ctr.cli import build_parser\n"
        "build_parser(*load_verbs()).format_help()\n"
        "print(*({'tensorflow', 'apache_beam', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", ["ctr.cli", "ctr.doctor", "serving"])
def test_core_works_without_beam(package: str) -> None:
    code = f"import sys; sys.modules['apache_beam'] = None; import {package}"
    subprocess.run([sys.executable, "-c", code], check=True)
