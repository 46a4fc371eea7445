from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from ctr.cli import main
from ctr.config import override
from ctr.errors import ConfigError
from ctr.harness.experiment import parse
from ctr.recipe import named_recipe
from ctr.search.measure import overhead
from ctr.simulator import WorldConfig, write_data

SETTINGS = [
    "--recipe", "mlp", "--set", "model.hidden=[32, 16]", "--set", "model.dim=4",
    "--set", "table_rows=2048", "--set", "batch_size=32",
]  # fmt: skip
OPTIONS = [
    "--option", "warmup=320", "--option", "rate=0.1", "--option", "ranks=[0.0]",
    "--option", "widths=[0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "data"
    world = WorldConfig(
        days=1.0, n_users=100, n_queries=16, n_ads=32, n_advertisers=8, n_topics=4, dim=4
    )
    write_data(folder, 3000, 1, world)
    return folder


def search(data: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    arguments = ["search", "--data", str(data), "--target", "0.75", *SETTINGS, *OPTIONS, *more]
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_the_page_it_writes_is_an_experiment_with_the_result(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "best.toml"
    found = search(data, capsys, "--rows", "2000", "--to", str(page))
    assert found["examples"] == 2000
    assert abs(found["cost"] / 0.75 - 1.0) <= 0.02
    experiment = parse(tomllib.loads(page.read_text()))
    assert experiment.stream.burn_in == 2000
    recipe = override(named_recipe("mlp"), experiment.base.set)
    assert recipe.model.hidden == (32, 16)
    assert override(recipe, experiment.arms[0].set).model.hidden == tuple(found["hidden"])


def test_a_random_search_keeps_the_best_of_its_trials(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(data, capsys, "--method", "random", "--trials", "2", "--rows", "640")
    assert abs(found["cost"] / 0.75 - 1.0) <= 0.02
    losses = {tuple(t["settings"]): t["log_loss"] for t in found["trials"]}
    assert len(losses) == 2
    assert losses[tuple(found["settings"])] == min(losses.values())
    assert found["examples"] == 1280


def test_bad_targets_and_models_end_with_a_sentence(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--data", str(data), "--target", "7"]) == 2
    assert "no tower costs within 2% of 7" in capsys.readouterr().err
    assert main(["search", "--data", str(data), "--target", "0.9", "--recipe", "lr"]) == 2
    assert "Linear has none" in capsys.readouterr().err


def test_overhead_is_what_is_left_of_the_time_without_matrices() -> None:
    slope, rest = 2e-9, 500.0
    times = [slope * (macs + rest) for macs in (1000.0, 4000.0)]
    assert overhead(times, [1000.0, 4000.0]) == pytest.approx(rest)
    assert overhead([1.0, 4.1], [1000.0, 4000.0]) == 0.0
    with pytest.raises(ConfigError, match="its width does not decide the time"):
        overhead([2.0, 1.0], [1000.0, 4000.0])
