from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from ctr.bench import learner
from ctr.bench.gemm import flops_per_example, gemm_only, layer_shapes
from ctr.bench.machine import machine
from ctr.bench.stream import N_CATEGORIES, cardinalities, generate, write_shard
from ctr.cli import main
from ctr.data import manifest
from ctr.errors import ConfigError


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    learner.add_arguments(parser)
    return parser.parse_args(argv)


def test_the_stream_is_zipf_with_a_signal() -> None:
    rows = generate(20_000)
    assert (rows.codes >= 1).all()
    assert (rows.codes <= cardinalities()).all()
    # Log-uniform: half of the rows lie below the square root of the cardinality.
    below = (rows.codes[:, -1] < np.sqrt(cardinalities()[-1])).mean()
    assert below == pytest.approx(0.5, abs=0.02)
    assert 0.15 < rows.label.mean() < 0.35
    assert generate(100, seed=1).label.tolist() != generate(100, seed=2).label.tolist()


def test_the_shard_is_committed(tmp_path: Path) -> None:
    write_shard(tmp_path, generate(50))
    schema, shards = manifest.load(tmp_path)
    assert [shard.n_rows for shard in shards] == [50]
    assert sum(feature.kind == "categorical" for feature in schema.features) == N_CATEGORIES


def test_the_floor_is_the_matrix_products_of_the_model() -> None:
    shapes = layer_shapes(429, 2, 64, (256, 128, 64))
    assert len(shapes) == 8
    assert flops_per_example(shapes) == 1_564_032


@pytest.mark.parametrize("compiled", [False, True])
def test_the_floor_runs(compiled: bool) -> None:
    (result,) = gemm_only([(6, 3), (3, 2)], n_batches=2, batch_size=4, compiled=compiled)()
    assert result.shape == (4, 6)
    assert np.isfinite(result).all()
    assert result.any()


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'floor'"):
        learner.run(arguments("--only", "flor"))


@pytest.mark.parametrize("option", ["--rounds", "--rows", "--batch-size"])
def test_counts_of_nothing_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(option, "0")
    assert f"{option}: expected an integer >= 1" in capsys.readouterr().err


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["cores"] >= 1
    assert json.loads(json.dumps(found)) == found
    assert "tensorflow" in found["packages"]


def test_the_verb_lists_its_targets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "learner" in capsys.readouterr().out


@pytest.mark.benchmark
def test_a_whole_run(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    learner.run(arguments("--rounds", "1", "--rows", "4096", "--output", str(output)))
    result = json.loads(output.read_text())
    assert len(result["targets"]) == 8
    assert all(target["ratio"] > 0 for target in result["targets"])
