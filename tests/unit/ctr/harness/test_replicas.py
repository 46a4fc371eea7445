"""What tells replicas of an arm apart, and what a common model takes away from that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr.data.examples import Chunk
from ctr.errors import ConfigError
from ctr.harness.arms import build_arm
from ctr.harness.experiment import parse
from ctr.harness.replay import replay
from ctr.harness.replicas import HandOver, Replica, reorder, replica
from ctr.harness.stream import Stream, open_stream
from ctr.learner import Learner

Page = Callable[..., dict[str, Any]]


def test_seeds_number_replicas_of_every_kind(random_data: Path, page: Page) -> None:
    arms = [
        {"name": "order", "vary": "order"},
        {"name": "threads", "vary": "threads"},
        {"name": "warm", "warm_start": {"rows": 300}},
    ]
    experiment = parse(page(random_data, seeds=[5, 3], arms=arms))
    base, _, order, threads, warm = experiment.all_arms
    assert replica(experiment, base, 3) == Replica(3)
    assert replica(experiment, order, 3) == Replica(5, order=3)
    assert replica(experiment, threads, 3) == Replica(5, threads=2)
    assert replica(experiment, warm, 3) == Replica(3, common_seed=5, warm_start=warm.warm_start)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": "sead"}, "did you mean 'seed'"),
        ({"vary": "order", "publish_interval_s": 60}, "plain loop"),
        (
            {"vary": "order", "modules": [{"use": "negative_sampling", "rate": 0.5}]},
            "plain loop",
        ),
        ({"warm_start": {"rows": 501}}, "not exceed the burn-in of 500"),
        ({"warm_start": {"rows": 0}}, "must be above 0"),
        ({"warm_start": {"rows": 10, "parts": "tabel"}}, "did you mean 'table'"),
    ],
)
def test_what_cannot_be_replicated_is_refused(
    random_data: Path, page: Page, changes: dict[str, Any], message: str
) -> None:
    def build() -> None:
        experiment = parse(page(random_data, arms=[{"name": "x", **changes}]))
        build_arm(experiment, experiment.arm("x"), open_stream(experiment).schema)

    with pytest.raises(ConfigError, match=message):
        build()


def test_reordered_batches_stay_whole_and_can_be_put_back() -> None:
    rng = np.random.default_rng(0)
    weights = np.ones((9, 3), np.float32)
    weights[7:] = 0  # padding at the end of the stream
    marks = np.arange(27).reshape(9, 3)
    chunk = Chunk(marks[..., None], marks[..., None], marks[..., None], weights, {"q": marks})
    moved, back = reorder(chunk, rng)
    assert not np.array_equal(moved.side["q"], marks)
    assert {tuple(row) for row in moved.side["q"]} == {tuple(row) for row in marks}
    for part in (*moved[:3], moved.side["q"]):
        assert np.array_equal(part.reshape(9, 3)[back], marks)
    assert np.array_equal(moved.weights, weights)


@pytest.fixture(scope="module")
def bound(random_data: Path) -> tuple[Stream, Any]:
    tiny = ["model.hidden=[8]", "model.dim=4", "table_rows=2048", "batch_size=32"]
    table = {
        "name": "tiny",
        "stream": {"data": str(random_data), "burn_in": 1100},
        "base": {"recipe": "mlp", "set": tiny},
    }
    experiment = parse(table)
    stream = open_stream(experiment)
    return stream, build_arm(experiment, experiment.all_arms[0], stream.schema).recipe


def probs(bound: tuple[Stream, Any], seed: int, n_batches: int = 16, **options: Any) -> np.ndarray:
    stream, recipe = bound
    learner = Learner(recipe, stream.schema, seed, n_batches=n_batches)
    return replay(learner, stream, 1100, **options).prob


def test_another_order_of_batches_is_other_luck(bound: tuple[Stream, Any]) -> None:
    plain, one, again, two = (probs(bound, 1, order=n) for n in (None, 1, 1, 2))
    assert one.tobytes() == again.tobytes()
    assert len({plain.tobytes(), one.tobytes(), two.tobytes()}) == 3
    # The order of one batch is that of the stream.
    alone = [probs(bound, 1, n_batches=1, order=n) for n in (None, 1)]
    assert alone[0].tobytes() == alone[1].tobytes()


def test_a_warm_start_with_everything_forgets_the_replicas_seed(
    bound: tuple[Stream, Any],
) -> None:
    def warm(seed: int, parts: str) -> np.ndarray:
        stream, recipe = bound
        common = Learner(recipe, stream.schema, 1, n_batches=16)
        return probs(bound, seed, hand_over=HandOver(common, 1000, parts))

    plain = probs(bound, 1)
    assert warm(2, "all").tobytes() == plain.tobytes()
    table = [warm(seed, "table") for seed in (2, 3)]
    assert table[0].tobytes() != table[1].tobytes()
    assert table[0].tobytes() != plain.tobytes()
