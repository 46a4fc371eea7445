from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctr.errors import StreamError
from ctr.harness.arms import build_arm
from ctr.harness.arrivals import Held, arrivals
from ctr.harness.experiment import parse
from ctr.harness.replay import Timing, launch_batches, predict_and_learn, replay, versions
from ctr.harness.scores import bucket_sums, values
from ctr.harness.stream import Stream, open_stream
from ctr.learner import Learner
from ctr.sampling import RuleSampler
from ctr.schema import Feature, Label, Schema
from ctr.techniques.negative_sampling import NegativeRule
from ctr.training import RunConfig, Trainer

S = 1_000_000


def opened(table: dict[str, Any], **changes: Any) -> tuple[Stream, Any]:
    experiment = parse({**table, **changes})
    stream = open_stream(experiment)
    return stream, build_arm(experiment, experiment.all_arms[0], stream.schema).recipe


def learner_for(stream: Stream, recipe: Any, timing: Timing, **options: Any) -> Learner:
    n_batches = launch_batches(stream, timing, recipe.batch_size, recipe.sampler.drops)
    return Learner(recipe, stream.schema, 1, n_batches=n_batches, **options)


def test_no_delay_is_the_trainers_loop_bit_for_bit(
    random_data: Path, page: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    stream, recipe = opened(page(random_data))
    trainer = Trainer(
        random_data, tmp_path / "run", RunConfig("mlp", recipe, 1), save_predictions=True
    )
    trainer.train()
    expected = pq.read_table(tmp_path / "run" / "predictions.parquet").column("prob").to_numpy()
    learner = Learner(recipe, stream.schema, 1)
    found = replay(learner, stream)
    assert found.prob[:, 0].tobytes() == expected.astype(np.float32).tobytes()
    for own, others in zip(learner.variables, trainer.learner.variables, strict=True):
        assert own.numpy().tobytes() == others.numpy().tobytes()
    lifetime = trainer.metrics["x"].lifetime()
    scored = values(bucket_sums(found.observed, found.prob[:, 0], 0, 0.0))
    assert scored["log_loss"] == pytest.approx(lifetime["log_loss"], rel=1e-12)
    assert scored["calibration"] == pytest.approx(lifetime["calibration"], rel=1e-12)
    assert scored["per_query_auc"] == pytest.approx(lifetime["per_query_auc"], rel=1e-12)
    assert scored["auc"] == pytest.approx(lifetime["auc"], abs=2e-4)


def test_first_and_rows_choose_a_part_of_the_stream(
    random_data: Path, page: Callable[..., dict[str, Any]]
) -> None:
    spec = {"data": str(random_data), "first": 700, "rows": 1001, "burn_in": 100}
    stream, recipe = opened(page(random_data, stream=spec))
    found = replay(Learner(recipe, stream.schema, 1), stream, 100)
    start = 1_700_000_000 * S
    assert len(found.prob) == 901
    assert found.observed.time_us[0] == start + 800 // 4 * 400_000
    assert found.observed.time_us[-1] == start + 1700 // 4 * 400_000
    with pytest.raises(StreamError, match="leave none to score"):
        opened(page(random_data, stream={**spec, "burn_in": 1001}))


class Spy:
    """Stands in for a learner; rows are told apart by their id."""

    whole_queries = False
    side = ()

    def __init__(self, real: Learner) -> None:
        self.encoder, self.labels, self.recipe = real.encoder, real.labels, real.recipe
        self.chunk_shape = (2, 8)
        self.learned: list[tuple[int, int]] = []
        self.events: list[tuple[str, Any]] = []
        self.row_of: dict[int, int] = {}

    def learn(self, chunk: Any) -> np.ndarray:
        flat_ids = chunk.ids[..., 0].reshape(-1)
        labels, weights = chunk.labels.reshape(len(flat_ids), -1), chunk.weights.reshape(-1)
        for row, label, weight in zip(flat_ids, labels, weights, strict=True):
            if weight:
                known = [t for t, value in enumerate(label) if value >= 0]
                self.learned += [(int(row), t) for t in known]
        return np.zeros((*chunk.weights.shape, len(self.labels)), np.float32)

    def predict(self, ids: np.ndarray, numeric: np.ndarray) -> np.ndarray:
        self.events.append(("predict", (ids[:, 0].tolist(), len(self.learned))))
        return np.full((len(ids), len(self.labels)), 0.5, np.float32)


def run_spy(spy: Any, stream: Stream, timing: Timing) -> None:
    blocks = [b for examples in stream.chunks(spy) for b in examples.blocks]
    held = Held.of(blocks, spy.recipe.sampler)
    label_time = stream.label_times(spy.labels) if timing.at_label_time else {}
    order = arrivals(held, spy.labels, timing.delay_us, label_time)
    predict_and_learn(spy, held, order, timing.publish_us, lambda _: None)


@pytest.fixture(scope="module")
def numbered(
    tmp_path_factory: pytest.TempPathFactory, write_stream: Callable[..., Path]
) -> tuple[Stream, Learner, np.ndarray, np.ndarray]:
    """400 rows about a second apart, each with its own id, labels x and y."""
    rng = np.random.default_rng(1)
    n = 400
    time_us = np.sort(rng.integers(0, n, n)) * S
    labels = {name: rng.integers(0, 2, n) for name in "xy"}
    event = np.where(labels["x"] == 1, time_us + 3 * S, -1)
    schema = Schema("numbered", (Feature("row"),), (Label("x"), Label("y")))
    import pyarrow as pa

    times = pa.array(event, mask=event < 0).cast(pa.timestamp("us", "UTC"))
    folder = write_stream(
        tmp_path_factory.mktemp("numbered") / "data", schema, time_us,
        {"row": [f"r{i}" for i in range(n)]}, labels, x_time=times,
    )  # fmt: skip
    spec = {
        "name": "n",
        "stream": {"data": str(folder)},
        "base": {"recipe": "lr", "set": ["batch_size=8", "table_rows=1048576"]},
    }
    stream, recipe = opened(spec)
    learner = Learner(recipe, stream.schema, 1, ("x", "y"))
    ids = np.concatenate([b.ids[:, 0] for e in stream.chunks(learner) for b in e.blocks])
    assert len(set(ids.tolist())) == n
    return stream, learner, ids, time_us


@pytest.mark.parametrize("publish_s", [0, 7, 50])
@pytest.mark.parametrize("delay", [(0, 0), (5, 5), (5, 30), (0, 12)])
@pytest.mark.parametrize("at_label_time", [False, True])
def test_a_label_is_learned_after_its_arrival_and_soon(
    numbered: tuple[Stream, Learner, np.ndarray, np.ndarray],
    publish_s: int,
    delay: tuple[int, int],
    at_label_time: bool,
) -> None:
    stream, learner, ids, time_us = numbered
    timing = Timing({"x": delay[0] * S, "y": delay[1] * S}, publish_s * S, at_label_time)
    if timing.immediate:
        pytest.skip("the plain loop predicts in the same pass")
    spy: Any = Spy(learner)
    run_spy(spy, stream, timing)
    row = {int(value): place for place, value in enumerate(ids)}
    arrival = {(r, t): time_us[r] + delay[t] * S for r in range(len(ids)) for t in (0, 1)}
    if at_label_time:
        for r, moment in enumerate(stream.label_times(("x",))["x"]):
            if moment >= 0:
                arrival[r, 0] = moment
    assert len(set(spy.learned)) == len(spy.learned)
    seen = 0
    predicted: list[int] = []
    for _, (predicted_ids, learned_before) in spy.events:
        rows = [row[i] for i in predicted_ids]
        predicted += rows
        first = time_us[rows[0]]
        version = first // (publish_s * S) * (publish_s * S) if publish_s else first
        for value, task in spy.learned[seen:learned_before]:
            assert arrival[row[value], task] < version
        seen = learned_before
        due = sum(moment < version for moment in arrival.values())
        # What arrived waits for a full batch at most (two labels of a row may come apart).
        assert due - learned_before < 2 * 8
    assert predicted == list(range(len(ids)))


def test_learning_follows_arrival_then_the_stream(
    numbered: tuple[Stream, Learner, np.ndarray, np.ndarray],
) -> None:
    stream, learner, ids, time_us = numbered
    spy: Any = Spy(learner)
    run_spy(spy, stream, Timing({"x": 5 * S, "y": 30 * S}, 10 * S))
    row = {int(value): place for place, value in enumerate(ids)}
    delay = (5 * S, 30 * S)
    order = [(time_us[row[v]] + delay[t], row[v]) for v, t in spy.learned]
    assert order == sorted(order)


def test_version_times() -> None:
    time_us = np.array([5, 9, 10, 31, 39])
    assert versions(time_us, 10, 2) == [(0, 2, 0), (2, 3, 10), (3, 5, 30)]
    assert versions(time_us, 0, 2) == [(0, 2, 5), (2, 4, 10), (4, 5, 39)]


def test_published_versions_predict_with_the_weights_of_their_time(
    random_data: Path, page: Callable[..., dict[str, Any]]
) -> None:
    stream, recipe = opened(page(random_data))
    timing = Timing({}, 60 * S)
    found = replay(learner_for(stream, recipe, timing), stream, 0, timing)
    # By hand: what came before the second version in full batches, then predictions.
    learner = Learner(recipe, stream.schema, 1, n_batches=1)
    blocks = [b for e in stream.chunks(learner) for b in e.blocks]
    time_us = np.concatenate([b.time_us for b in blocks])
    version = time_us // (60 * S)
    first, second = np.searchsorted(version, [version[0] + 1, version[0] + 2])
    full = first // 32 * 32
    for examples in stream.chunks(learner):
        if examples.stop > full:
            break
        learner.learn(examples.chunk((1, 32)))
    ids, numeric = (np.concatenate([getattr(b, k) for b in blocks]) for k in ("ids", "numeric"))
    expected = learner.predict(ids[first:second], numeric[first:second])
    assert found.prob[first:second] == pytest.approx(expected, abs=1e-6)
    assert np.ptp(found.prob[:first]) < 1e-6  # nothing was learned before the first version


def test_what_a_sampler_drops_is_predicted_but_not_learned(
    random_data: Path, page: Callable[..., dict[str, Any]]
) -> None:
    rule = RuleSampler((NegativeRule(0.5),))
    stream, recipe = opened(page(random_data))
    recipe = dataclasses.replace(recipe, sampler=rule)
    learner = learner_for(stream, recipe, Timing())
    found = replay(learner, stream, 0, Timing())
    blocks = [b for e in stream.chunks(learner) for b in e.blocks]
    kept = sum(int((rule.factors(b) > 0).sum()) for b in blocks)
    assert len(found.prob) == 3000
    assert (found.observed.weights == 1).all()
    assert 1000 < kept < 2600
    assert int(learner.examples.numpy()) == kept
    assert found.cost.share == kept / 3000
    scored = values(bucket_sums(found.observed, found.prob[:, 0], 0, 0.0))
    assert scored["calibration"] == pytest.approx(1.0, abs=0.2)


@dataclasses.dataclass(frozen=True)
class _WholeQueries:
    """A probe that changes nothing but asks for batches that never cut a query."""

    whole_queries = True

    def observe(self, before: Any, batch: Any) -> None:
        del before, batch

    def report(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("probes", [(), (_WholeQueries(),)])
def test_a_sampler_that_drops_nothing_is_the_plain_loop(
    random_data: Path, page: Callable[..., dict[str, Any]], probes: tuple[Any, ...]
) -> None:
    # Four rows each share a time here: none of them may make learning wait.
    stream, recipe = opened(page(random_data))
    recipe = dataclasses.replace(recipe, probes=probes)
    plain = replay(Learner(recipe, stream.schema, 1), stream)
    recipe = dataclasses.replace(recipe, sampler=RuleSampler((NegativeRule(1.0),)))
    learner = learner_for(stream, recipe, Timing())
    sampled = replay(learner, stream)
    np.testing.assert_allclose(sampled.prob, plain.prob, rtol=1e-5)
    for own, others in zip(learner.variables, plain.learner.variables, strict=True):
        np.testing.assert_allclose(own.numpy(), others.numpy(), rtol=1e-4, atol=1e-6)


def twins(write_stream: Callable[..., Path], folder: Path, gap_s: int) -> Path:
    """Every id comes twice, ``gap_s`` apart, with one coin's label: only its first label helps."""
    rng = np.random.default_rng(4)
    n = 1500
    first = np.arange(n) * S
    time_us = np.concatenate([first, first + gap_s * S])
    who, coin = np.tile(np.arange(n), 2), np.tile(rng.integers(0, 2, n), 2)
    order = np.argsort(time_us, kind="stable")
    schema = Schema("twins", (Feature("who"),), (Label("y"),))
    return write_stream(
        folder, schema, time_us[order], {"who": [f"w{w}" for w in who[order]]}, {"y": coin[order]}
    )


@pytest.mark.parametrize(
    ("delay_s", "publish_s", "low", "high"),
    [
        (100, 0, 0.75, 0.9),
        (400, 0, 0.46, 0.54),
        (100, 50, 0.75, 0.9),
        (310, 50, 0.46, 0.54),
        # The label is there in 2 of 5 cases: a version is published in time, or it is not.
        (280, 50, 0.58, 0.75),
        # Half of the twins straddle a version.
        (0, 600, 0.6, 0.75),
    ],
)
def test_a_planted_future_label_is_worth_nothing_before_it_arrives(
    tmp_path: Path,
    write_stream: Callable[..., Path],
    delay_s: int,
    publish_s: int,
    low: float,
    high: float,
) -> None:
    folder = twins(write_stream, tmp_path / "data", gap_s=300)
    spec = {
        "name": "twins",
        "stream": {"data": str(folder)},
        "base": {"recipe": "lr", "set": ["batch_size=8", "table_rows=1048576"]},
    }
    stream, recipe = opened(spec)
    timing = Timing({"y": delay_s * S}, publish_s * S)
    found = replay(learner_for(stream, recipe, timing), stream, 0, timing)
    # First sights are tosses of a coin; second ones are known if the first was learned.
    auc = values(bucket_sums(found.observed, found.prob[:, 0], 0, 0.0))["auc"]
    assert low < auc < high
