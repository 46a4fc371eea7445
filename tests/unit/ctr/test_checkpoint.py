from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctr.checkpoint import CheckpointStore, Saved, read, restore
from ctr.errors import CheckpointError, ConfigError
from ctr.models import Linear, Mlp
from ctr.recipe import Recipe
from ctr.schema import Schema
from tests.unit.ctr.conftest import BATCH, TABLE_ROWS, Learners, Stream, learn, state

LR = Recipe(model=Linear(), batch_size=BATCH, table_rows=TABLE_ROWS)
ARRAYS = {"click/sums": np.arange(4.0)}


@pytest.fixture
def learner(learners: Learners, tiny_schema: Schema, planted: Callable[..., Stream]) -> object:
    learner = learners(LR, tiny_schema)
    learn(learner, planted(100))
    return learner


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def newest(store: CheckpointStore) -> Saved:
    saved = store.latest()
    assert saved is not None
    return saved


def test_everything_comes_back(
    learner: object, store: CheckpointStore, planted: Callable[..., Stream]
) -> None:
    store.save(learner, 100, ARRAYS, {"run": "x"})
    kept = state(learner)
    probs = learn(learner, planted(50, seed=1))
    assert state(learner) != kept
    saved = newest(store)
    restore(learner, saved)
    assert state(learner) == kept
    assert (saved.examples, saved.extra) == (100, {"run": "x"})
    np.testing.assert_array_equal(saved.arrays["click/sums"], ARRAYS["click/sums"])
    assert learn(learner, planted(50, seed=1)).tobytes() == probs.tobytes()


def test_only_the_newest_are_kept(learner: object, store: CheckpointStore) -> None:
    for examples in (10, 20, 1000):
        store.save(learner, examples, ARRAYS, {})
    assert [read(path).examples for path in store.paths()] == [20, 1000]


@pytest.mark.parametrize("file", ["metrics.npz", "variables.index", "checkpoint.json"])
def test_a_damaged_newest_one_is_passed_over(
    learner: object, store: CheckpointStore, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    store.save(learner, 10, ARRAYS, {})
    path = store.save(learner, 20, ARRAYS, {}) / file
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        assert newest(store).examples == 10
    assert "Falling back" in caplog.text
    assert file in caplog.text


def test_nothing_but_damage_is_an_error(learner: object, store: CheckpointStore) -> None:
    (store.save(learner, 10, ARRAYS, {}) / "metrics.npz").unlink()
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        store.latest()


def test_what_a_crash_left_behind_is_ignored_and_removed(
    learner: object, store: CheckpointStore
) -> None:
    assert store.latest() is None
    stale = store.folder / ".partial-123"
    stale.mkdir(parents=True)
    (stale / "metrics.npz").write_bytes(b"half")
    assert store.latest() is None
    store.save(learner, 10, ARRAYS, {})
    assert [path.name for path in store.folder.iterdir()] == [store.paths()[0].name]


def test_another_recipe_is_refused(
    learner: object, store: CheckpointStore, learners: Learners, tiny_schema: Schema
) -> None:
    store.save(learner, 10, ARRAYS, {})
    deep = Recipe(model=Mlp(dim=4, hidden=(8,)), batch_size=BATCH, table_rows=TABLE_ROWS)
    with pytest.raises(CheckpointError, match="does not fit this recipe"):
        restore(learners(deep, tiny_schema), newest(store))


def test_another_table_size_is_refused(
    learner: object, store: CheckpointStore, learners: Learners, tiny_schema: Schema
) -> None:
    store.save(learner, 10, ARRAYS, {})
    other = Recipe(model=Linear(), batch_size=BATCH, table_rows=TABLE_ROWS + 1)
    with pytest.raises(CheckpointError, match="does not fit this recipe"):
        restore(learners(other, tiny_schema), newest(store))


def test_at_least_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        CheckpointStore(tmp_path, keep=0)
