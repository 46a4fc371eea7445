"""The one learner on parameter servers: a worker dies and comes back, the curve stays the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cluster_harness import TIMEOUT_S, TINY, curves, on_a_cluster

from ctr.config import override
from ctr.distributed.local import open_cluster
from ctr.distributed.task import spec_from_environment
from ctr.errors import ConfigError
from ctr.recipe import named_recipe
from ctr.simulator import write_data
from ctr.training import RunConfig
from ctr.training.load import load_run
from ctr.training.trainer import Trainer


def check(
    tmp_path: Path, rows: int, kill_at: int, wait_at: int, seeds: int, stretches: int
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    write_data(data, rows, seed=3)
    told = on_a_cluster(data, run, "mlp", kill_at, wait_at, TINY)
    assert told["restarted"]
    assert told["back"]
    assert told["learned"] == rows
    # The worker that came back did its share of what was left.
    assert told["cpu_s"][1] > 0.2 * told["cpu_s"][0]
    # What the servers saved is an ordinary checkpoint of the ordinary learner.
    loaded = load_run(run)
    assert loaded.saved.examples == rows
    assert rows <= int(loaded.learner.examples) <= rows + 4 * 8 * 32
    found = curves(data, run, "mlp", seeds, TINY, stretches)
    assert found.noise > 0.0
    assert found.distance <= 3.0 * found.noise, (found.distance, found.noise, found.bias)


def test_a_worker_dies_and_comes_back(tmp_path: Path) -> None:
    check(tmp_path, 8000, 2000, 3000, seeds=3, stretches=4)


@pytest.mark.slow
def test_a_worker_dies_and_comes_back_in_a_longer_stream(tmp_path: Path) -> None:
    check(tmp_path, 60_000, 20_000, 25_000, seeds=5, stretches=12)


def test_one_worker_learns_what_one_process_learns(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_data(data, 3000, seed=3)
    config = RunConfig("mlp", override(named_recipe("mlp"), TINY))
    Trainer(data, tmp_path / "one", config, save_predictions=True).train()
    command = [str(Path(sys.executable).with_name("octr")), "train", "--data", str(data),
               "--run", str(tmp_path / "two"), "--recipe", "mlp", "--cluster", "1x2",
               "--save-predictions"]  # fmt: skip
    settings = [part for setting in TINY for part in ("--set", setting)]
    done = subprocess.run(
        [*command, *settings], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Error" not in done.stderr
    one, two = (
        pq.read_table(tmp_path / run / "predictions.parquet")["prob"].to_numpy()
        for run in ("one", "two")
    )
    np.testing.assert_allclose(two, one, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("where", ["2", "2x", "axb", "0x1", "1x0"])
def test_what_is_no_cluster_is_refused(where: str) -> None:
    with pytest.raises(ConfigError, match="2x2"), open_cluster(where):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker"}}',
    ],
)
def test_a_tf_config_without_a_cluster_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="TF_CONFIG"):
        spec_from_environment()


def test_the_cluster_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"worker": ["a:1", "a:2"], "ps": ["b:1"], "chief": ["c:1"]}
    config = {"cluster": cluster, "task": {"type": "ps", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    spec = spec_from_environment()
    assert (spec.role, spec.index) == ("ps", 0)
    with open_cluster("env") as addresses:
        assert addresses["worker"] == ("a:1", "a:2")
