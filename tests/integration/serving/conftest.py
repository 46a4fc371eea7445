"""A trained run and a folder of versions that the tests of serving share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ctr.config import override
from ctr.recipe import named_recipe
from ctr.simulator import write_data
from ctr.training import RunConfig, Trainer
from serving.blessing import write_verdict
from serving.export import export_model


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "data"
    write_data(folder, 6000, seed=1, shard_rows=3500)
    return folder


@pytest.fixture(scope="session")
def run_dir(data: Path) -> Path:
    recipe = override(named_recipe("lr"), ["table_rows=4096", "batch_size=64"])
    folder = data.with_name("run")
    Trainer(data, folder, RunConfig("lr", recipe)).train()
    return folder


@pytest.fixture(scope="session")
def version(run_dir: Path) -> Path:
    """An exported version; to be copied, not changed."""
    return export_model(run_dir, run_dir.with_name("models"))


@pytest.fixture
def models(version: Path, tmp_path: Path) -> Path:
    """A folder of models with one blessed version, 1."""
    add_version(version, tmp_path / "shop", 1)
    return tmp_path / "shop"


def add_version(source: Path, models_dir: Path, number: int, blessed: bool = True) -> Path:
    """Copies a version under another number; it appears at once, as an export does."""
    models_dir.mkdir(exist_ok=True)
    partial = models_dir / f".export-{number}"
    shutil.copytree(source, partial)
    if blessed:
        write_verdict(partial, True, {})
    return partial.rename(models_dir / str(number))


@pytest.fixture
def add(version: Path, models: Path):
    """Adds a further copy of the version to ``models``."""
    return lambda number, blessed=True: add_version(version, models, number, blessed)
