import numpy as np
import pytest

from ctr.cli import main
from ctr.metrics import ProgressiveMetrics
from ctr.report import build_report, save_report


@pytest.fixture
def run_dirs(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for name in ("lr", "wide_dcn"):
        prob = rng.uniform(0.05, 0.5, 500)
        metrics = ProgressiveMetrics(window_us=100)
        metrics.update(np.arange(500), prob, rng.random(500) < prob)
        report = build_report(
            run={"id": name, "recipe": name},
            metrics=metrics,
            examples=500,
            cpu_us_per_example=None,
            peak_memory_bytes=1,
        )
        paths.append(tmp_path / name)
        paths[-1].mkdir()
        save_report(paths[-1], report)
    return paths


def test_one_run_is_rendered_in_place(run_dirs, capsys):
    assert main(["report", str(run_dirs[0])]) == 0
    out, err = capsys.readouterr()
    assert "lr" in out
    assert "log loss" in out
    assert "report.html" in err
    assert "<svg" in (run_dirs[0] / "report.html").read_text()


def test_several_runs_are_compared(run_dirs, capsys):
    assert main(["report", *map(str, run_dirs)]) == 0
    assert "wide_dcn" in capsys.readouterr().out
    assert "2 runs" in (run_dirs[0] / "comparison.html").read_text()
    assert not (run_dirs[0] / "report.html").exists()


def test_output_names_the_page(run_dirs, tmp_path, capsys):
    page = tmp_path / "page.html"
    json_path = run_dirs[1] / "report.json"
    assert main(["report", str(json_path), "--output", str(page)]) == 0
    assert "wide_dcn" in page.read_text()


def test_a_folder_without_a_report_is_a_usage_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no report at" in err


def test_a_replay_is_not_mixed_with_runs(run_dirs, tmp_path, capsys):
    other = tmp_path / "replay"
    other.mkdir()
    (other / "report.json").write_text('{"kind": "replay", "format": 1}')
    assert main(["report", str(run_dirs[0]), str(other)]) == 2
    assert "drawn alone" in capsys.readouterr().err
