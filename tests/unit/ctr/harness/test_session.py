"""Experiments from page to report, with tiny units in real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr.errors import ConfigError, CtrError, ModuleError
from ctr.harness.arms import build_arm, unit_identity
from ctr.harness.experiment import A_A, BASE, parse
from ctr.harness.page import render
from ctr.harness.replicas import replica
from ctr.harness.result import read_report
from ctr.harness.runner import Unit, run_units
from ctr.harness.session import run_experiment, seeds
from ctr.harness.stream import open_stream
from ctr.harness.table import text_table

Page = Callable[..., dict[str, Any]]


def identity(table: dict[str, Any], arm: str = BASE, seed: int = 1) -> str:
    experiment = parse(table)
    stream = open_stream(experiment)
    built = build_arm(experiment, experiment.arm(arm), stream.schema)
    own = replica(experiment, experiment.arm(arm), seed)
    return unit_identity(experiment, stream, built, own, experiment.burn_in)


def test_a_units_id_follows_what_decides_its_numbers(random_data: Path, page: Page) -> None:
    table = page(random_data)
    first = identity(table)
    assert first == identity(table)
    assert first == identity(table, A_A)
    assert first == identity({**table, "name": "renamed", "seeds": [1, 5]})
    warm = {"name": "a", "warm_start": {"rows": 400}}
    changed = [
        identity(table, seed=2),
        identity({**table, "delay_s": 5}),
        identity({**table, "publish_interval_s": 5}),
        identity({**table, "labels": ["y"]}),
        identity({**table, "slices": ["b"]}),
        identity({**table, "vary": "order"}),
        identity({**table, "arms": [warm]}, "a"),
        identity({**table, "arms": [{**warm, "warm_start": {"rows": 300}}]}, "a"),
        identity({**table, "stream": {**table["stream"], "burn_in": 501}}),
        identity({**table, "base": {"recipe": "mlp", "set": ["model.dim=4"]}}),
    ]
    assert len({first, *changed}) == len(changed) + 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": ["z"]}, ConfigError, "no label 'z'"),
        ({"delay_s": {"z": 1}}, ConfigError, "delay_s names 'z'"),
        ({"delay_s": -1}, ConfigError, "seconds of at least 0"),
        ({"base": {"recipe": "mpl"}}, ConfigError, "did you mean 'mlp'"),
        ({"arms": [{"name": "a", "set": ["model.dmi=3"]}]}, ConfigError, "did you mean 'dim'"),
        ({"arms": [{"name": "a", "modules": [{"use": "smelo"}]}]}, ModuleError, "no research"),
        ({"arms": [{"name": "a", "modules": [{"use": "no.where:X"}]}]}, ModuleError, "imported"),
        (
            {"arms": [{"name": "a", "modules": [{"use": "rank_loss", "alhpa": 1}]}]},
            ModuleError,
            "no field 'alhpa'",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    random_data: Path,
    page: Page,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type,
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        run_experiment(page(random_data, **changes), tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_delays_by_label_and_from_the_schema(random_data: Path, page: Page) -> None:
    def delays(**changes: Any) -> dict[str, int]:
        experiment = parse(page(random_data, labels=["x", "y"], **changes))
        schema = open_stream(experiment).schema
        return build_arm(experiment, experiment.all_arms[-1], schema).timing.delay_us

    assert delays() == {"x": 0, "y": 0}
    assert delays(delay_s="schema") == {"x": 20_000_000, "y": 50_000_000}
    assert delays(delay_s={"y": 3}) == {"y": 3_000_000}
    assert delays(delay_s=7, arms=[{"name": "a", "delay_s": {"x": 1}}]) == {"x": 1_000_000}


@pytest.fixture(scope="module")
def finished(random_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """Base, A/A and one arm, two seeds, two labels, tuned, costs in turns: 11 units."""
    output = tmp_path_factory.mktemp("out")
    tiny = ["model.hidden=[8]", "model.dim=4", "table_rows=2048", "batch_size=32"]
    table = {
        "name": "tiny",
        "stream": {"data": str(random_data), "burn_in": 200},
        "base": {"recipe": "mlp", "set": tiny},
        "labels": ["x", "y"],
        "seeds": [1, 2],
        "arms": [
            {"name": "faster", "set": ["init_scale=0.05"], "publish_interval_s": 30},
            {
                "name": "no place",
                "modules": [{"use": "examination_sampling", "seen": [1.0, 0.2]}],
                "optional": True,
            },
        ],
        "cost_rounds": 6,
        "tune": {
            "rows": 600,
            "trials": 2,
            "method": "grid",
            "parameters": {"optimizer.head.rate": [0.01, 0.05]},
        },
    }
    outcome = run_experiment(table, output, 2)
    return output, table, outcome


def test_report_of_an_experiment(finished: tuple[Path, Any, Any]) -> None:
    output, _, outcome = finished
    report = read_report(output)
    assert report == json.loads(json.dumps(outcome.report))
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert set(arms) == {BASE, A_A, "faster"}
    assert "has no position" in report["left_out"]["no place"]
    assert "has no position" in render(report)
    assert arms[BASE]["seeds"] == [1, 2]
    assert arms[A_A]["seeds"] == [1]
    assert report["stream"]["burn_in"] == 600  # what was tuned on is not scored
    assert arms[BASE]["scored"] == 2400
    for label in ("x", "y"):
        same = arms[A_A]["labels"][label]["metrics"]["log_loss"]
        assert same["difference"] == 0.0
        entry = arms["faster"]["labels"][label]["metrics"]["log_loss"]
        assert entry["difference"] != 0.0
        assert len(entry["differences"]) == 2
        assert entry["over_time"]["low"] < entry["difference"] < entry["over_time"]["high"]
        assert entry["over_seeds"]["low"] <= entry["difference"] <= entry["over_seeds"]["high"]
    verdicts = {
        name: arm["labels"]["x"]["metrics"]["log_loss"].get("verdict") for name, arm in arms.items()
    }
    assert verdicts[BASE] is None
    assert verdicts[A_A] == "no difference shown"
    assert "verdict" not in arms["faster"]["labels"]["y"]["metrics"]["log_loss"]
    assert 0 < arms[BASE]["prediction_difference"]["value"] < 1
    assert arms["faster"]["prediction_difference"]["difference"]["value"] != 0
    for key in ("inference_us_per_example", "parameters", "peak_memory_bytes"):
        assert arms["faster"]["costs"][key]["ratio"] > 0
    assert arms["faster"]["costs"]["parameters"]["ratio"] == 1.0
    assert arms["faster"]["costs"]["cpu_us_per_example"]["rounds"] == 6
    for key in ("cpu_us_per_example", "inference_us_per_example"):
        assert 0.3 < arms[A_A]["costs"][key]["ratio"] < 3.0
    assert arms["faster"]["learned_share"] > 0.9


def test_every_arm_was_tuned_alike(finished: tuple[Path, Any, Any]) -> None:
    tuned = finished[2].report["tuned"]
    assert {len(tuned[arm]["trials"]) for arm in (BASE, "faster")} == {2}
    for found in (tuned[BASE], tuned["faster"]):
        best = min(found["trials"], key=lambda trial: trial["score"])
        assert found["choice"] == best["choice"]


def test_table_and_page(finished: tuple[Path, Any, Any]) -> None:
    report = finished[2].report
    table = text_table(report)
    assert [line.split("  ")[0] for line in table.splitlines()][:2] == ["arm", BASE]
    assert "no difference shown" in table
    html = render(report)
    assert html.count("<svg") >= 8  # two labels
    assert "http://" not in html
    assert "https://" not in html


def test_finished_units_are_not_run_again(
    finished: tuple[Path, Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output, table, outcome = finished
    before = {p: p.stat().st_mtime_ns for p in output.glob("work/*/result.json")}
    again = run_experiment(table, output, 2)
    assert {p: p.stat().st_mtime_ns for p in output.glob("work/*/result.json")} == before
    assert again.report["arms"] == outcome.report["arms"]
    assert "were there already" in capsys.readouterr().err


def test_a_failed_unit_stops_no_other(
    random_data: Path, page: Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = page(random_data, seeds=[1])
    good = Unit(identity(table), BASE, 1, table, burn_in=500)
    bad = Unit("0" * 12, BASE, 1, {**table, "labels": ["z"]}, burn_in=500)
    failures = run_units([bad, good], tmp_path, 1, 3000)
    assert [f.unit for f in failures] == [bad]
    assert "z" in failures[0].reason
    assert failures[0].log.is_file()
    assert good.result(tmp_path) is not None
    assert "failed: base, seed 1" in capsys.readouterr().err


def test_the_repetition_of_the_base_takes_one_seed(random_data: Path, page: Page) -> None:
    experiment = parse(page(random_data, seeds=[3, 4]))
    assert seeds(experiment, experiment.arm(BASE)) == (3, 4)
    assert seeds(experiment, experiment.arm(A_A)) == (3,)


def test_another_kind_of_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CtrError, match="no report of octr replay"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"kind": "replay", "format": 99}')
    with pytest.raises(CtrError, match="format 1, received replay 99"):
        read_report(tmp_path)


def test_optuna_searches_a_real_experiment(random_data: Path, page: Page, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    tune = {
        "rows": 500,
        "trials": 3,
        "method": "optuna",
        "parameters": {
            "optimizer.head.rate": {"low": 0.005, "high": 0.1, "log": True},
            "model.hidden": [[8], [4, 4]],
        },
    }
    outcome = run_experiment(page(random_data, seeds=[1], tune=tune), tmp_path, 2)
    assert not outcome.failures
    found = outcome.report["tuned"][BASE]
    assert len(found["trials"]) == 3
    for trial in found["trials"]:
        assert 0.005 <= trial["choice"]["optimizer.head.rate"] <= 0.1
        assert trial["choice"]["model.hidden"] in ([8], [4, 4])
    best = min(found["trials"], key=lambda trial: trial["score"])
    assert found["choice"] == best["choice"]
    recipe = outcome.report["arms"][0]["recipe"]
    assert recipe["model"]["hidden"] == best["choice"]["model.hidden"]
