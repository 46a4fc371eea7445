"""``kill -9`` at any moment, other thread counts: the same bytes."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_harness import Kill, Outcome, outcome, replace_shards, train, train_and_kill

from ctr.simulator import write_data

N_ROWS = 24_000
OPTIONS = ("--batch-size", "32", "--set", "table_rows=8192", "--save-predictions")
#: In order; later kinds need what the lives before them have left.
KILLS = ("learning", "saving", "saving", "learning", "final")


def with_holes(sequence: int, path: Path) -> None:
    """Makes some numbers NaN or infinite, so that there is something to count."""
    table = pq.read_table(path)
    values = table.column("bid").to_numpy().copy()
    values[::7] = np.nan
    values[::11] = np.inf
    place = table.schema.get_field_index("bid")
    table = table.set_column(place, "bid", pa.array(values, pa.float32()))
    pq.write_table(table, path, row_group_size=3000)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash") / "data"
    write_data(folder, N_ROWS, seed=3, shard_rows=7000)
    replace_shards(folder, with_holes)
    return folder


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One life, which saves nothing before its end."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    train(data, run, *OPTIONS)
    return outcome(run)


def test_killed_runs_end_with_the_same_bytes(
    data: Path, undisturbed: Outcome, tmp_path: Path
) -> None:
    options = (*OPTIONS, "--checkpoint-every", "2048", "--keep-checkpoints", "2")
    rng = random.Random(0)
    run = tmp_path / "run"
    landed = []
    for kind in KILLS:
        alive, state = train_and_kill(data, run, Kill.random(kind, rng), N_ROWS, options)
        print(f"{kind}: {'killed' if alive else 'finished before'}, {state}")
        landed.append(alive)
    stderr = train(data, run, *options)
    assert sum(landed) >= 4, landed
    assert "resuming at example" in stderr or "nothing to do" in stderr or landed[-1]
    assert outcome(run).differences(undisturbed) == []
    assert undisturbed.report["counts"] == {
        "numeric_nonfinite.bid": sum(
            i % 7 == 0 or i % 11 == 0 for n in (7000, 7000, 7000, 3000) for i in range(n)
        ),
    }
    assert len(undisturbed.points) > 20
    assert len((undisturbed.predictions or {})["prob"]) == N_ROWS
    assert not list((run / "checkpoints").glob(".partial-*"))


def test_threads_change_no_byte(data: Path, undisturbed: Outcome, tmp_path: Path) -> None:
    for threads in ("1", "2"):
        run = tmp_path / threads
        train(data, run, *OPTIONS, "--threads", threads)
        assert outcome(run).differences(undisturbed) == []


def test_the_comparison_sees_every_part(undisturbed: Outcome) -> None:
    name = next(iter(undisturbed.variables))
    predictions = undisturbed.predictions
    assert predictions is not None
    changed = [
        ({"variables": {**undisturbed.variables, name: b""}}, f"variables: {name}"),
        ({"state": {}}, "state: click/meta"),
        ({"report": {**undisturbed.report, "metrics": {}}}, "report: metrics"),
        ({"predictions": {**predictions, "prob": predictions["prob"][1:]}}, "predictions.parquet"),
        ({"points": undisturbed.points[1:]}, "TensorBoard points"),
    ]
    for change, line in changed:
        assert line in undisturbed.differences(dataclasses.replace(undisturbed, **change))
