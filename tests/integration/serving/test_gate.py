"""``octr gate``: the good version passes, every seeded bad one is refused for its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctr.cli import main
from ctr.errors import ConfigError, StreamError
from ctr.training.load import LoadedRun, load_run
from serving.blessing import blessed_versions, is_blessed
from serving.export import export_model
from serving.gating.gate import Verdict, gate
from serving.gating.thresholds import Thresholds

#: The device that the tampered model favours.
DEVICE = "tablet"
#: For a model that learned from 6,000 examples only.
LAX = Thresholds(
    max_normalized_entropy=1.2,
    max_calibration_error=0.5,
    max_recent_calibration_error=0.5,
    max_progressive_slice_error=2.0,
    max_slice_calibration_error=0.2,
    max_latency_ms_p50=5e3,
    max_latency_ms_p99=5e4,
    recent_examples=6000,
    slice_examples=400,
)


@pytest.fixture
def bad(
    run_dir: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[LoadedRun], LoadedRun | None]], Path]:
    """Exports a run that was tampered with, beside the blessed version, and returns the version."""

    def export(tamper: Callable[[LoadedRun], LoadedRun | None]) -> Path:
        run = load_run(run_dir)
        monkeypatch.setattr("serving.export.load_run", lambda _: tamper(run) or run)
        return export_model(run_dir, models)

    return export


def failed(verdict: Verdict) -> set[str]:
    """Returns the failed checks, after making sure that the marker says the same."""
    assert not verdict.passed
    assert not is_blessed(verdict.version)
    assert not (verdict.version / "BLESSED").exists()
    marker = json.loads((verdict.version / "NOT_BLESSED").read_text())
    assert marker["reasons"] == list(verdict.reasons)
    return {check.name for check in verdict.checks if not check.passed}


def test_the_good_version_passes(models: Path, data: Path, add: Callable[..., Path]) -> None:
    newest = add(2, blessed=False)
    verdict = gate(models, data, LAX)
    assert verdict.reasons == ()
    assert (verdict.version, verdict.baseline) == (newest, models / "1")
    assert {check.name for check in verdict.checks} == {
        name for name in vars(LAX) if name[:4] in ("max_", "min_")
    }
    measured = {check.name: check.value for check in verdict.checks}
    assert measured["max_prediction_difference"] == 0.0
    assert measured["max_log_loss_increase"] == 0.0
    assert blessed_versions(models) == [models / "1", newest]


def test_without_a_baseline_changes_are_not_judged(
    version: Path, data: Path, tmp_path: Path
) -> None:
    first = Path(shutil.copytree(version, tmp_path / "7"))
    verdict = gate(first, data, LAX)
    assert verdict.passed
    assert verdict.baseline is None
    assert not {c.name for c in verdict.checks} & {"max_log_loss_increase", "max_auc_decrease"}


def test_a_stale_one_is_refused(bad: Callable, data: Path) -> None:
    def a_week_older(run: LoadedRun) -> LoadedRun:
        extra = {**run.saved.extra, "event_time_us": run.event_time_us - 7 * 86_400_000_000}
        return replace(run, saved=replace(run.saved, extra=extra))

    assert failed(gate(bad(a_week_older), data, LAX)) == {"max_age_s", "max_behind_baseline_s"}


def test_one_miscalibrated_on_a_slice_is_refused(bad: Callable, data: Path) -> None:
    def too_high(run: LoadedRun) -> None:
        def rows(device: str) -> set[int]:
            blank = {name: [None] for name in run.learner.encoder.columns}
            row = pa.RecordBatch.from_pydict({**blank, "device": [device]})
            ids = run.learner.encoder.encode(row).ids
            return set(run.learner.calibrator._rows(ids).numpy()[0].tolist())

        (own,) = rows(DEVICE) - rows("")
        run.learner.calibrator.bias.scatter_nd_add([[own]], [[1.5]])

    others = ("log_loss_increase", "auc_decrease", "recent_calibration_error")
    lax = replace(LAX, **{f"max_{name}": 9.0 for name in others})
    verdict = gate(bad(too_high), data, lax)
    assert failed(verdict) == {"max_slice_calibration_error"}
    assert f"device = {DEVICE}" in verdict.reasons[0]


def test_one_with_swapped_features_is_refused(bad: Callable, data: Path) -> None:
    def swap(run: LoadedRun) -> None:
        salts = run.learner.encoder.salts
        salts["ad_id"], salts["user_id"] = salts["user_id"], salts["ad_id"]
        salts["country"], salts["slot"] = salts["slot"], salts["country"]

    # Its own check scores were made by the same mistake; only the data can tell.
    assert "max_log_loss_increase" in failed(gate(bad(swap), data, LAX))


def test_nan_weights_are_refused(
    bad: Callable, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(run: LoadedRun) -> None:
        wide = run.learner.table.wide
        wide.assign(np.where(np.arange(wide.shape[0])[:, None] % 2, np.nan, wide.numpy()))

    # The export itself would refuse.
    monkeypatch.setattr("serving.parity.TOLERANCE", float("inf"))
    monkeypatch.setattr("serving.export.check_parity", lambda *args: replace_parity())
    assert {"max_not_finite", "max_score_difference"} <= failed(gate(bad(damage), data, LAX))


def replace_parity():
    from serving.parity import Parity

    return Parity(0, 0.0)


def test_a_constant_is_refused(bad: Callable, data: Path) -> None:
    def flatten(run: LoadedRun) -> None:
        for variable in (*run.learner.model.trainable_variables, run.learner.table.wide):
            variable.assign(np.zeros(variable.shape))
        run.learner.calibrator.bias.assign(np.zeros(run.learner.calibrator.bias.shape))

    assert "min_prob_std" in failed(gate(bad(flatten), data, LAX))


def test_another_schema_is_refused(
    models: Path, data: Path, add: Callable[..., Path], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(data, tmp_path / "other"))
    schema = json.loads((other / "schema.json").read_text())
    schema["features"][0]["salt"] = "renamed"
    (other / "schema.json").write_text(json.dumps(schema))
    verdict = gate(models / "1", other, LAX)
    assert failed(verdict) == set()
    assert "takes schema" in verdict.reasons[0]


@pytest.mark.parametrize("name", ["variables/variables.data-00000-of-00001", "saved_model.pb"])
def test_a_truncated_file_is_refused(models: Path, data: Path, name: str) -> None:
    file = models / "1" / name
    file.write_bytes(file.read_bytes()[:-100])
    verdict = gate(models, data, LAX)
    failed(verdict)
    assert "missing or damaged" in verdict.reasons[0]


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "files": {}}'])
def test_a_damaged_manifest_is_refused(models: Path, data: Path, text: str) -> None:
    (models / "1" / "manifest.json").write_text(text)
    assert not is_blessed(models / "1")
    verdict = gate(models, data, LAX)
    failed(verdict)
    assert "manifest.json" in verdict.reasons[0]


def test_a_blessing_ends_with_the_next_refusal(models: Path, data: Path) -> None:
    assert is_blessed(models / "1")
    failed(gate(models, data, replace(LAX, max_size_mb=0.0)))
    assert gate(models, data, LAX).passed
    assert is_blessed(models / "1")
    assert not (models / "1" / "NOT_BLESSED").exists()


def test_the_command_tells_and_exits(
    models: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "gate.toml"
    bounds = {k: v for k, v in vars(LAX).items() if v != vars(Thresholds())[k]}
    page.write_text("".join(f"{name} = {value}\n" for name, value in bounds.items()))
    argv = ["gate", str(models), "--data", str(data), "--thresholds", str(page)]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "BLESSED"
    page.write_text("min_auc = 0.999\n")
    assert main(argv) == 1
    found = capsys.readouterr()
    assert json.loads(found.out)["verdict"] == "NOT_BLESSED"
    assert "octr: refused: auc 0." in found.err


def test_what_cannot_be_judged_changes_no_verdict(models: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(StreamError):
        gate(models, tmp_path, LAX)
    with pytest.raises(ConfigError, match="no exported model"):
        gate(tmp_path / "nowhere", data, LAX)
    with pytest.raises(ConfigError, match="is no folder"):
        gate(models / "99", data, LAX)
    (tmp_path / "5").mkdir()
    with pytest.raises(ConfigError, match="the baseline cannot be used"):
        gate(models, data, LAX, tmp_path / "5")
    assert is_blessed(models / "1")
