from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import ctr.registry
from ctr.cli import main


def test_installed_modules_are_listed_with_slots_and_paper(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["modules"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("rank_loss ")]
    assert "loss" in line.split()[1]
    assert "arXiv:2209.05310" in line


def test_one_module_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modules", "negative_sampling"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("negative_sampling: ctr.techniques.negative_sampling:Negative")
    assert "Reduces to:" in out
    assert "extends   sampler" in out
    assert "  rate: float = 0.25" in out


def test_an_unknown_name_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modules", "negative_samplnig"]) == 2
    assert "did you mean 'negative_sampling'" in capsys.readouterr().err


def test_a_module_that_cannot_be_loaded_is_listed_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [
        EntryPoint("broken", "no.such.package:Thing", ctr.registry.GROUP),
        EntryPoint("thin", "ctr.techniques.time_window:TimeWindowModule", ctr.registry.GROUP),
    ]
    monkeypatch.setattr(ctr.registry, "entry_points", lambda group: points)
    assert main(["modules"]) == 1
    out, err = capsys.readouterr()
    assert "thin" in out
    assert "'broken' cannot be loaded: No module named 'no'" in err


def test_modules_in_the_working_directory_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_module.py").write_text(
        "from dataclasses import dataclass\n"
        "from ctr.module import ModuleInfo\n"
        "@dataclass(frozen=True)\n"
        "class Own:\n"
        "    'Mine.'\n"
        "    info = ModuleInfo('own', 'no paper')\n"
        "    def apply(self, recipe):\n"
        "        return recipe\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    assert main(["modules", "own_module:Own"]) == 0
    assert "Mine." in capsys.readouterr().out
