"""A teacher's column holds what the model predicted before it learned each example."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctr.config import override
from ctr.data import manifest
from ctr.harness.arms import build_arm
from ctr.harness.experiment import parse
from ctr.harness.replay import replay
from ctr.harness.stream import CACHE_VARIABLE, Stream, open_stream
from ctr.learner import Learner
from ctr.recipe import named_recipe

TINY = ["model.hidden=[8]", "model.dim=4", "table_rows=2048", "batch_size=32"]


def test_the_column_is_the_teachers_progressive_prediction(
    random_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    teacher = {"recipe": "mlp", "set": TINY, "seed": 4}
    table = {
        "name": "taught",
        "stream": {"data": str(random_data), "teacher": teacher},
        "base": {"recipe": "mlp", "set": TINY},
        "arms": [{"name": "student", "modules": [{"use": "distillation"}]}],
    }
    experiment = parse(table)
    stream = open_stream(experiment)
    assert build_arm(experiment, experiment.arm("student"), stream.schema)
    table_read = pq.read_table(stream.data_dir / stream.shards[0].file)
    schema, shards = manifest.load(random_data)
    learner = Learner(override(named_recipe("mlp"), TINY), schema, 4)
    expected = replay(learner, Stream(random_data, schema, shards, 0, 3000)).prob[:, 0]
    assert table_read.column("teacher").to_numpy().tobytes() == expected.tobytes()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert open_stream(experiment).data_dir == stream.data_dir
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
