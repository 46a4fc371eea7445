"""``octr train --follow``: shards are learned as they come, and when they came changes no byte."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_harness import command, outcome, replace_shards

from ctr.cli import main
from ctr.data import manifest
from ctr.errors import ConfigError, StreamError
from ctr.simulator import write_data
from ctr.techniques.late_labels import LateLabels
from ctr.testing.stream import tiny_recipe
from ctr.training.follow import Following, FollowTrainer
from ctr.training.run import RunConfig
from ctr.training.session import train_and_report
from ctr.training.status import read_status

N_ROWS = 3000
FAST = Following(checkpoint_minutes=60.0, poll_s=0.02)
CONFIG = RunConfig("tiny", LateLabels().apply(tiny_recipe()), window_s=3600.0, by_shard=True)


def with_corrections(sequence: int, path: Path) -> None:
    """Marks every 50th row as a correction."""
    table = pq.read_table(path)
    again = [int(k % 50 == 49) for k in range(table.num_rows)]
    table = table.append_column("correction", pa.array(again, pa.int8()))
    table = table.set_column(
        table.schema.get_field_index("click"),
        "click",
        pa.array(
            [1 if a else y for a, y in zip(again, table["click"].to_pylist(), strict=True)],
            pa.int8(),
        ),
    )
    pq.write_table(table, path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("follow") / "data"
    write_data(folder, N_ROWS, seed=5, shard_rows=700)
    schema, shards = manifest.load(folder)
    columns = {**schema.columns, "correction": ("correction",)}
    manifest.commit(folder, replace(schema, columns=columns), shards)
    replace_shards(folder, with_corrections)
    (folder / manifest.CLOSED).touch()
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run that found everything in place."""
    run = tmp_path_factory.mktemp("complete") / "run"
    train_and_report(FollowTrainer(data, run, CONFIG, FAST, save_predictions=True))
    return run, outcome(run)


@pytest.fixture(scope="module")
def complete(finished):
    return finished[1]


def test_shards_that_come_one_by_one(data: Path, complete, tmp_path: Path) -> None:
    schema, shards = manifest.load(data)
    slow = tmp_path / "data"
    (slow / "shards").parent.mkdir()
    (slow / "shards").symlink_to(data / "shards")
    started = threading.Event()

    def produce() -> None:
        for k in range(len(shards) + 1):
            manifest.commit(slow, schema, shards[:k])
            started.wait(0.3)
        (slow / manifest.CLOSED).touch()

    producer = threading.Thread(target=produce)
    producer.start()
    run = tmp_path / "run"
    train_and_report(FollowTrainer(slow, run, CONFIG, FAST, save_predictions=True))
    producer.join()
    assert outcome(run).differences(complete) == []
    state = read_status(run)
    assert state["examples"] == N_ROWS
    assert state["lag_examples"] == 0
    assert state["state"] == "ended"
    assert state["window"]["log_loss"] > 0


def test_corrections_are_learned_but_not_scored(complete) -> None:
    predictions = complete.predictions
    unknown = [k for k, y in enumerate(predictions["label"]) if y is None]
    starts = range(0, N_ROWS, 700)
    assert unknown == [s + k for s in starts for k in range(49, min(700, N_ROWS - s), 50)]
    scored = complete.report["metrics"]["lifetime"]["examples"]
    assert scored == N_ROWS - len(unknown)
    assert complete.report["counts"]["late_labels"] == len(unknown)


def test_asked_to_end_it_saves(data: Path, tmp_path: Path) -> None:
    schema, shards = manifest.load(data)
    slow, run = tmp_path / "data", tmp_path / "run"
    slow.mkdir()
    (slow / "shards").symlink_to(data / "shards")
    manifest.commit(slow, schema, shards[:2])
    settings = ("--follow", "--set", "table_rows=8192", "--batch-size", "32")
    with subprocess.Popen(command(slow, run, *settings), stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if (run / "status.json").is_file() and read_status(run)["examples"] == 1400:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert [p.name for p in (run / "checkpoints").glob("step-*")] == ["step-000000000001400"]


def test_status_verb(finished, tmp_path: Path, capsys) -> None:
    run = finished[0]
    assert main(["status", str(run)]) == 0
    text = capsys.readouterr().out
    assert f"{N_ROWS:,}, 0 committed ones to go" in text
    assert "calibration" in text
    assert main(["status", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == N_ROWS
    assert main(["status", str(tmp_path)]) == 2


def test_refusals(data: Path, tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="no examples after"):
        FollowTrainer(
            tmp_path / "none", tmp_path / "r", CONFIG, Following(idle_s=0.05, poll_s=0.01)
        )
    with pytest.raises(ConfigError, match="checkpoint-minutes"):
        Following(checkpoint_minutes=0)
    _, shards = manifest.load(data)
    trainer = FollowTrainer(data, tmp_path / "run", CONFIG, FAST)
    with pytest.raises(StreamError, match="no longer begins"):
        trainer.reader.extend(shards[1:])
