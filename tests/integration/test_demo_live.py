"""``octr demo --live`` in small: every process does its part and the report is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr.cli import main
from ctr.report.content import load_report
from ctr.training.status import read_status

N = 5000


def test_a_day_is_joined_learned_and_compared_with_the_truth(tmp_path: Path, capsys) -> None:
    out = tmp_path / "demo"
    command = ["demo", "--live", "--output", str(out), "--impressions", str(N), "--seconds", "3"]
    assert main(command) == 0
    told = capsys.readouterr().out
    report = load_report(out / "run")
    state = read_status(out / "run")
    assert f"{N:,} examples" in told
    assert (state["state"], state["lag_examples"], state["alarms"]) == ("ended", 0, [])
    assert state["examples"] == report["examples"] > N, "late labels came as corrections"
    assert report["metrics"]["lifetime"]["examples"] == N
    assert 0.0 < report["truth"]["regret"] < 1.0
    assert 0.5 < report["truth"]["predicted_over_true"] < 1.5
    assert str(out / "run" / "report.html") in told
    page = (out / "run" / "report.html").read_text()
    assert "Against the truth" in page
    assert f"{state['examples'] - N:,} labels that came after their example were learned" in page
    assert main(command) == 2, "the folder is in use"
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_refusals(seconds: str, tmp_path: Path, capsys) -> None:
    assert main(["demo", "--live", "--output", str(tmp_path), "--seconds", seconds]) == 2
    assert "--seconds" in capsys.readouterr().err
