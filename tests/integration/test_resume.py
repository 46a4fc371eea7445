"""What a run folder goes on with, and what it refuses."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from crash_harness import replace_shards, variables

from ctr.checkpoint import CheckpointStore, read
from ctr.cli import main
from ctr.config import override
from ctr.data import manifest
from ctr.errors import CheckpointError, ConfigError, CtrError
from ctr.recipe import named_recipe
from ctr.schema import schema_from_dict, schema_to_dict
from ctr.simulator import write_data
from ctr.training import RunConfig, Trainer, train_and_report
from ctr.training.trainer import Status

N_ROWS = 12_000
SETTINGS = ("table_rows=4096", "batch_size=32")
STOP_AT = 6000


class Stopped(Exception):
    """Ends a run in the middle, as a crash would, but quickly."""


def config(seed: int = 0, recipe: str = "lr", warm_start: str = "") -> RunConfig:
    chosen = override(named_recipe(recipe), SETTINGS)
    return RunConfig(recipe, chosen, seed, warm_start=warm_start)


def trainer(data: Path, run: Path, settings: RunConfig | None = None, **options: object) -> Trainer:
    return Trainer(data, run, settings or config(), checkpoint_every=1, **options)  # type: ignore[arg-type]


def stop(trained: Trainer) -> None:
    def watch(status: Status) -> None:
        if status.examples >= STOP_AT:
            raise Stopped

    with pytest.raises(Stopped):
        trained.train(watch)


def steps(run: Path) -> list[int]:
    return [int(p.name.removeprefix("step-")) for p in CheckpointStore(run / "checkpoints").paths()]


def newest(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").paths()[-1]


def spoil(checkpoint: Path) -> None:
    file = next(checkpoint.glob("variables.data*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def same_end(run: Path, other: Path) -> bool:
    assert steps(run)[-1] == steps(other)[-1] == N_ROWS
    return variables(newest(run)) == variables(newest(other))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "data"
    write_data(folder, N_ROWS, seed=5, shard_rows=5000)
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    train_and_report(trainer(data, run, save_predictions=True))
    return run


@pytest.fixture(scope="module")
def half(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("half") / "run"
    stop(trainer(data, run, save_predictions=True))
    assert 0 < steps(run)[-1] < N_ROWS
    assert len(steps(run)) > 1
    return run


@pytest.fixture
def run(half: Path, tmp_path: Path) -> Path:
    """A stopped run that a test may go on with or damage."""
    return Path(shutil.copytree(half, tmp_path / "run"))


@pytest.fixture
def data_copy(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "data"))


def test_finished_run_is_left_alone(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    options = [x for setting in SETTINGS for x in ("--set", setting)]
    with caplog.at_level(logging.INFO, "ctr"):
        code = main(
            ["train", "--data", str(data), "--run", str(finished), "--recipe", "lr", *options]
        )
    assert code == 0
    assert f"has learned all 12,000 examples of {data}; nothing to do" in caplog.text
    assert json.loads(capsys.readouterr().out)["examples"] == N_ROWS
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_report_that_a_crash_prevented_is_written_later(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    wanted = json.loads((run / "report.json").read_text())["metrics"]
    for name in ("report.json", "predictions.parquet"):
        (run / name).unlink()
    train_and_report(trainer(data, run, save_predictions=True))
    assert json.loads((run / "report.json").read_text())["metrics"] == wanted
    assert pq.read_table(run / "predictions.parquet").num_rows == N_ROWS


def test_new_data_are_learned_from_the_cursor(data_copy: Path, tmp_path: Path) -> None:
    schema, shards = manifest.load(data_copy)
    run = tmp_path / "run"
    manifest.commit(data_copy, schema, shards[:2])
    first = train_and_report(trainer(data_copy, run, save_predictions=True))
    early = pq.read_table(run / "predictions.parquet")
    manifest.commit(data_copy, schema, shards)
    grown = trainer(data_copy, run, save_predictions=True)
    assert grown.position == first["examples"] == 10_000
    report = train_and_report(grown)
    assert report["examples"] == report["metrics"]["lifetime"]["examples"] == N_ROWS
    late = pq.read_table(run / "predictions.parquet")
    assert late.num_rows == N_ROWS
    assert late.slice(0, 10_000).equals(early)


def test_corrupt_newest_checkpoint_costs_time_only(
    data: Path, finished: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    *_, before, last = steps(run)
    spoil(newest(run))
    resumed = trainer(data, run, save_predictions=True, keep=1)
    assert f"{last:015d}: variables.data-00000-of-00001 is missing or damaged" in caplog.text
    assert "Falling back" in caplog.text
    assert resumed.position == before
    train_and_report(resumed)
    assert steps(run) == [N_ROWS]
    assert same_end(run, finished)
    ours, theirs = (pq.read_table(r / "predictions.parquet") for r in (run, finished))
    assert ours.equals(theirs)


def test_damaged_checkpoint_is_never_one_of_the_kept(data: Path, run: Path) -> None:
    """Else the only good one would be removed to keep the damaged one."""
    spoil(newest(run))
    resumed = trainer(data, run, keep=1)
    store = CheckpointStore(run / "checkpoints", keep=1)
    store.save(resumed.learner, resumed.position + 1, {}, {})
    assert steps(run) == [resumed.position + 1]


def test_no_silent_start_from_scratch(data: Path, run: Path) -> None:
    for checkpoint in CheckpointStore(run / "checkpoints").paths():
        spoil(checkpoint)
    with pytest.raises(CheckpointError, match=r"no undamaged checkpoint: all . are damaged"):
        trainer(data, run)


def test_another_configuration_is_refused(data: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match="differs in seed: 0 -> 1"):
        trainer(data, run, config(seed=1))
    with pytest.raises(ConfigError, match="recipe_name: 'lr' -> 'mlp'"):
        trainer(data, run, config(recipe="mlp"))


def change_schema(data: Path, change: Callable[[dict], object]) -> None:
    schema, shards = manifest.load(data)
    table = schema_to_dict(schema)
    change(table)
    manifest.commit(data, schema_from_dict(table), shards)


def test_another_schema_is_refused(data_copy: Path, run: Path) -> None:
    change_schema(data_copy, lambda table: table["features"].pop(0))
    with pytest.raises(CheckpointError, match=r"was trained with schema \w+, but .* has schema"):
        trainer(data_copy, run)
    with pytest.raises(CheckpointError, match=r"--warm-start .* was trained with schema"):
        trainer(data_copy, run.parent / "new", config(warm_start=str(newest(run))))
    assert not (run.parent / "new").exists()


def test_replaced_data_are_refused(data_copy: Path, run: Path) -> None:
    def rewrite(sequence: int, path: Path) -> None:
        if sequence == 0:
            pq.write_table(pq.read_table(path), path, compression="none")

    replace_shards(data_copy, rewrite)
    with pytest.raises(CheckpointError, match=r"no longer begins with the [\d,]+ examples"):
        trainer(data_copy, run)


def test_checkpoints_of_another_run_are_refused(data: Path, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    stop(trainer(data, other, config(seed=1)))
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    with pytest.raises(CheckpointError, match="belongs to run"):
        trainer(data, run)


def test_predictions_cannot_begin_in_the_middle(data: Path, run: Path) -> None:
    shutil.rmtree(run / "predictions")
    trainer(data, run)
    with pytest.raises(ConfigError, match=r"no predictions of examples 0 to .*--save-predictions"):
        trainer(data, run, save_predictions=True)


def test_a_run_has_one_writer(data: Path, run: Path) -> None:
    first = trainer(data, run)
    with pytest.raises(ConfigError, match="another process is training"):
        trainer(data, run)
    first.run.lock.release()
    trainer(data, run)


def test_other_versions_are_reported(
    data: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((run / "run.json").read_text())
    record["versions"]["tensorflow"] = "1.15"
    (run / "run.json").write_text(json.dumps(record))
    trainer(data, run)
    assert "was begun with other versions (tensorflow 1.15 -> 2." in caplog.text


def test_run_that_learned_nothing_can_be_made_anew(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer(data, run, save_predictions=True).run.lock.release()
    (run / "predictions" / f"{0:015d}-{2048:015d}.parquet").touch()
    assert trainer(data, run, config(seed=1)).run.record["config"]["seed"] == 1
    assert not (run / "predictions").exists()


def test_warm_start_has_old_weights_and_new_metrics(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copytree(newest(finished), tmp_path / "start"))
    warm = config(warm_start=str(start))
    begun = trainer(data, tmp_path / "whole", warm)
    assert begun.position == 0
    assert begun.metrics["click"].lifetime()["examples"] == 0
    np.testing.assert_array_equal(
        begun.learner.table.wide.numpy().tobytes(),
        next(v for n, v in variables(start).items() if n.startswith("learner/table/wide/")),
    )
    report = train_and_report(begun)
    cold = json.loads((finished / "report.json").read_text())
    assert report["examples"] == N_ROWS
    assert report["metrics"]["lifetime"]["log_loss"] < cold["metrics"]["lifetime"]["log_loss"]

    # Once it has a checkpoint of its own, it needs the other one no more.
    stop(trainer(data, tmp_path / "parts", warm))
    shutil.rmtree(start)
    resumed = trainer(data, tmp_path / "parts", warm)
    assert resumed.position == steps(tmp_path / "parts")[-1]
    assert train_and_report(resumed)["metrics"] == report["metrics"]
    assert same_end(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("keep", [0, -1])
def test_at_least_one_checkpoint_is_kept(keep: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"received {keep}"):
        CheckpointStore(tmp_path, keep)


def test_damaged_meta_data_are_told_from_missing_ones(half: Path, run: Path) -> None:
    (newest(run) / "checkpoint.json").write_text("[]")
    with pytest.raises(CtrError, match=r"checkpoint.json cannot be read"):
        read(newest(run))
    assert read(newest(half)).examples == steps(half)[-1]
