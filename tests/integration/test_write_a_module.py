"""The page ``docs/write_a_module.md`` does what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TINY = (
    "stream.simulate.impressions=3000",
    "stream.burn_in=500",
    "seeds=[1]",
    "base.set=['model.hidden=[8]', 'model.dim=4', 'table_rows=2048']",
    "arms.0.modules.0.epsilon=0.2",
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = repo_root / "docs" / "write_a_module.md"
    made = tmp_path_factory.mktemp("newcomer")
    module, own_test = blocks(page, "python")
    assert len([line for line in module.splitlines() if line.strip()]) <= 32
    (made / "label_smoothing.py").write_text(module)
    (made / "test_own.py").write_text(own_test)
    (made / "smoothing.toml").write_text(blocks(page, "toml")[0])
    return made


def octr(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from ctr.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", code, *arguments]
    environment = {"OCTR_CACHE": str(folder / "cache"), "PATH": "/usr/bin:/bin"}
    import os

    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_the_module_passes_its_checks(folder: Path, repo_root: Path) -> None:
    (line,) = [text for text in blocks(repo_root / "docs" / "write_a_module.md", "console")
               if text.startswith("octr check")]  # fmt: skip
    done = octr(folder, *line.split()[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    assert all(text.startswith("ok ") for text in lines)


def test_the_test_in_the_page_collects_one_case_per_check(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own.py", "-k",
         "docstring or slots or pure"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_experiment_runs_and_resumes(folder: Path) -> None:
    settings = [part for text in TINY for part in ("--set", text)]
    done = octr(folder, "replay", "smoothing.toml", "--jobs", "2", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "replays" / "smoothing" / "report.json").read_text())
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert list(arms) == ["base", "base (A/A)", "smoothing 0.01", "smoothing 0.1"]
    losses = {
        name: arm["labels"]["click"]["metrics"]["log_loss"]["value"] for name, arm in arms.items()
    }
    assert losses["base (A/A)"] == losses["base"]
    assert len(set(losses.values())) == 3
    same = arms["base (A/A)"]["labels"]["click"]["metrics"]["log_loss"]
    assert same["difference"] == 0.0
    assert same["verdict"] == "no difference shown"
    assert "smoothing 0.1" in done.stdout
    assert "<svg" in (folder / "replays" / "smoothing" / "report.html").read_text()

    again = octr(folder, "replay", "smoothing.toml", *settings)
    assert "4 of 4 units were there already" in again.stderr
    assert again.stdout == done.stdout
    drawn = octr(folder, "report", "replays/smoothing")
    assert drawn.stdout == done.stdout
