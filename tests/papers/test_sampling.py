"""Sampling by hash with weights: known truth, what is saved, and what stays the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from ctr.api import Batch
from ctr.config import from_plain, to_plain
from ctr.data import manifest
from ctr.data.examples import Block
from ctr.data.reader import ShardReader
from ctr.encoding import Encoder
from ctr.errors import ConfigError, ModuleError, SchemaError, StreamError
from ctr.hashing import fingerprint64
from ctr.learner import Learner
from ctr.models import Linear
from ctr.module import compose
from ctr.parts import known_parts
from ctr.recipe import Recipe
from ctr.sampling import RuleSampler, uniform
from ctr.schema import Feature, Label, Schema
from ctr.techniques.examination_sampling import ExaminationRule, ExaminationSamplingModule
from ctr.techniques.loss_sampling import LossRule, LossSamplingModule, RunningLossSampler
from ctr.techniques.negative_sampling import NegativeRule, NegativeSamplingModule
from ctr.techniques.time_window import TimeWindowModule, TimeWindowRule

SCHEMA = Schema(
    "ads",
    (Feature("item"), Feature("size", kind="numeric")),
    (Label("click"),),
    {"query_id": ("page",), "position": ("position",)},
    side=("pilot",),
)


def block(click: np.ndarray, **side: np.ndarray) -> Block:
    n = len(click)
    frame = pa.record_batch({"example_id": pa.array([f"e{i}" for i in range(n)])})
    empty = np.empty((n, 0), np.int32)
    labels = click.reshape(n, 1).astype(np.float32)
    ones, times = np.ones(n, np.float32), np.arange(n, dtype=np.int64)
    return Block(empty, empty.astype(np.float32), labels, ones, times, None, side, frame)


def logistic_fit(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Newton's method on the weighted log loss of intercept and slope."""
    design, beta = np.column_stack([np.ones_like(x), x]), np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (w * p * (1 - p))[:, None]).T @ design
        beta += np.linalg.solve(hessian, design.T @ (w * (y - p)))
    return beta


@pytest.fixture(scope="module")
def known() -> tuple[np.ndarray, np.ndarray, Block]:
    """200,000 examples with log-odds -3 + 1.2 x, the true probabilities as pilot."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=200_000)
    p = 1 / (1 + np.exp(3 - 1.2 * x))
    y = (rng.random(len(x)) < p).astype(float)
    position = (np.arange(len(x)) % 8 + 1).astype(np.int32)
    return x, y, block(y, pilot=p.astype(np.float32), position=position)


RULES = {
    "negatives": NegativeRule(0.1),
    "loss": LossRule("pilot", 0.1, 0.1),
    "examination": ExaminationRule((1.0, 0.8, 0.5, 0.2), 0.3, 0.1, 1),
}


@pytest.mark.parametrize("name", RULES)
def test_weights_recover_the_truth(known, name: str) -> None:
    x, y, rows = known
    factors = RuleSampler((RULES[name],)).factors(rows)
    kept = factors > 0
    assert kept.mean() < 0.65
    beta = logistic_fit(x[kept], y[kept], factors[kept])
    np.testing.assert_allclose(beta, [-3.0, 1.2], atol=0.06)


def test_without_weights_negatives_bias_the_level_and_losses_the_slope(known) -> None:
    x, y, rows = known
    kept = RuleSampler((RULES["negatives"],)).factors(rows) > 0
    level = logistic_fit(x[kept], y[kept], np.ones(kept.sum()))
    np.testing.assert_allclose(level, [-3.0 - np.log(0.1), 1.2], atol=0.06)
    kept = RuleSampler((RULES["loss"],)).factors(rows) > 0
    slope = logistic_fit(x[kept], y[kept], np.ones(kept.sum()))[1]
    assert slope < 0.9


def test_sums_over_kept_rows_are_unbiased_in_every_bucket(known) -> None:
    x, y, rows = known
    sampler = RuleSampler(tuple(RULES.values()))
    factors = sampler.factors(rows)
    rates = sampler.rates(rows)
    for part in np.array_split(np.argsort(x), 10):
        for values in (np.ones(len(part)), y[part]):
            spread = np.sqrt((values**2 * (1 / rates[part] - 1)).sum())
            assert abs((factors[part] * values).sum() - values.sum()) <= 3.5 * spread + 1e-6


def test_rules_take_the_lowest_rate_and_lower_rates_keep_subsets(known) -> None:
    _, y, rows = known
    rates = RuleSampler((NegativeRule(0.5), LossRule("pilot", 0.1, 0.2))).rates(rows)
    assert set(np.unique(rates)) == {0.2, 0.5, 1.0}
    assert (rates[y == 1] == 1.0).all()  # a click of probability over 90 % is not among them
    kept = [RuleSampler((NegativeRule(r),)).factors(rows) > 0 for r in (0.05, 0.2, 0.7)]
    assert (kept[1] | ~kept[0]).all()
    assert (kept[2] | ~kept[1]).all()
    other = RuleSampler((NegativeRule(0.2),), salt="other").factors(rows) > 0
    assert (other != kept[1]).mean() > 0.2


def test_rows_without_a_prediction_are_kept() -> None:
    pilot = np.array([np.nan, 0.01, -1.0, 0.01, 1.0], np.float32)
    rows = block(np.array([0, 0, 0, -1, 1]), pilot=pilot)
    assert LossRule("pilot", 0.1, 0.3).rates(rows).tolist() == [1.0, 0.3, 1.0, 1.0, 0.3]


def test_positions_beyond_the_list_have_its_last_chance_and_clicks_are_kept() -> None:
    place = np.array([1, 2, 3, 9, 9], np.int32)
    rows = block(np.array([0, 0, 0, 0, 1]), position=place)
    assert ExaminationRule((0.9, 0.2), 0.5, 0.1, 1).rates(rows).tolist() == [1, 0.1, 0.1, 0.1, 1]


def test_the_choice_in_the_graph_is_a_function_of_the_example() -> None:
    ids = pa.array([f"e{i}" for i in range(4000)])
    hashes = fingerprint64(ids)
    sampler = RunningLossSampler(0.2, 0.25)
    labels = np.zeros((4000, 1), np.float32)
    labels[::2] = 1.0
    batch = Batch(
        tf.zeros([4000, 1]), tf.zeros([4000, 0]), tf.constant(labels), tf.ones([4000]),
        {"example": tf.constant(hashes.view(np.int64))}, tf.constant(0, tf.int64),
    )  # fmt: skip
    weights = sampler(batch, tf.fill([4000, 1], -3.0)).weights.numpy()
    assert (weights[::2] == 1.0).all()
    expected = np.where(uniform(hashes, "running model") < 0.25, 4.0, 0.0)
    np.testing.assert_array_equal(weights[1::2], expected[1::2])


@pytest.fixture
def folder(write):
    rng = np.random.default_rng(0)
    n = 1500
    item = rng.integers(0, 30, n)
    p = 1 / (1 + np.exp(2.5 - item / 15))
    return write(
        SCHEMA,
        click=(rng.random(n) < p).astype(np.int8),
        item=[f"i{i}" for i in item],
        size=rng.normal(size=n).astype(np.float32),
        query_id=[str(i // 5) for i in range(n)],
        position=(np.arange(n) % 5 + 1).astype(np.int32),
        pilot=p.astype(np.float32),
    )


def read(folder, sampler, start: int = 0, shape: tuple[int, int] = (2, 40)):
    schema, shards = manifest.load(folder)
    reader = ShardReader(
        folder, schema, shards, Encoder(schema, 512), ("click",), 0, ("pilot",), False, sampler
    )
    return list(reader.chunks(shape, start))


def test_the_reader_drops_before_encoding_and_positions_count_the_stream(folder) -> None:
    everything = read(folder, None)
    whole = np.concatenate([b.ids for e in everything for b in e.blocks])
    sampler = RuleSampler((NegativeRule(0.2),))
    chunks = read(folder, sampler)
    blocks = [b for e in chunks for b in e.blocks]
    rows = np.concatenate([b.frame.column("example_id").to_numpy(False) for b in blocks])
    kept = np.array([int(r[1:]) for r in rows])
    assert 200 < len(kept) < 700
    np.testing.assert_array_equal(np.concatenate([b.ids for b in blocks]), whole[kept])
    weights = np.concatenate([b.weights for b in blocks])
    clicks = np.concatenate([b.labels for b in blocks])[:, 0]
    np.testing.assert_array_equal(weights, np.where(clicks == 1, 1.0, 5.0))
    assert all(e.n_rows == 80 for e in chunks[:-1])
    assert [e.start for e in chunks] == [0, *(e.stop for e in chunks[:-1])]
    assert chunks[-1].stop == 1500
    assert sum(e.counts["sampled_out"] for e in chunks) == 1500 - len(kept)


def test_reading_can_go_on_after_any_chunk(folder) -> None:
    sampler = RuleSampler((NegativeRule(0.1),))
    chunks = read(folder, sampler)
    for number, chunk in enumerate(chunks[:-1]):
        rest = read(folder, sampler, chunk.stop)
        assert [(e.start, e.stop) for e in rest] == [
            (e.start, e.stop) for e in chunks[number + 1 :]
        ]
        for a, b in zip(rest, chunks[number + 1 :], strict=True):
            np.testing.assert_array_equal(a.chunk((2, 40)).ids, b.chunk((2, 40)).ids)


def test_a_window_keeps_its_rows_alone_and_an_empty_one_is_refused(folder) -> None:
    # Examples are a second apart, from the epoch.
    window = RuleSampler((TimeWindowRule("1970-01-01T00:10:00", "1970-01-01T00:15:00"),))
    chunks = read(folder, window)
    assert sum(e.n_rows for e in chunks) == 300
    assert chunks[0].blocks[0].time_us[0] == 600_000_000
    assert chunks[-1].stop == 1500
    with pytest.raises(StreamError, match="leaves out every example"):
        read(folder, RuleSampler((TimeWindowRule(start="1980-01-01"),)))


BASE = Recipe(model=Linear(), table_rows=512, batch_size=32)


def test_the_learner_stays_calibrated_with_weights_and_not_without(folder, one_pass) -> None:
    recipe = compose(BASE, [NegativeSamplingModule(0.2)])
    learner = passes(one_pass, folder, recipe)
    schema, shards = manifest.load(folder)
    reader = ShardReader(folder, schema, shards, learner.encoder, ("click",))
    blocks = [b for e in reader.chunks((2, 40)) for b in e.blocks]
    ids = np.concatenate([b.ids for b in blocks])
    numeric = np.concatenate([b.numeric for b in blocks])
    click = np.concatenate([b.labels for b in blocks])
    assert 0.85 < learner.predict(ids, numeric).sum() / click.sum() < 1.15
    unweighted = replace(recipe, sampler=_Unweighted(recipe.sampler.rules))
    biased = passes(one_pass, folder, unweighted)
    assert biased.predict(ids, numeric).sum() / click.sum() > 1.8


def passes(one_pass, folder, recipe: Recipe) -> Learner:
    """Goes over the few examples several times, so that the level has settled."""
    learner = one_pass(folder, recipe).learner
    for _ in range(5):
        one_pass(folder, recipe, learner=learner)
    return learner


class _Unweighted(RuleSampler):
    def factors(self, rows: Block) -> np.ndarray:
        return (super().factors(rows) > 0).astype(np.float32)


def test_rates_of_one_change_nothing(folder, one_pass) -> None:
    plain = one_pass(folder, BASE)
    sampled = one_pass(folder, compose(BASE, [NegativeSamplingModule(1.0)]))
    np.testing.assert_array_equal(plain.prob, sampled.prob)
    # In the graph, factors of 1 are multiplied in another order of operations.
    running = one_pass(folder, compose(BASE, [LossSamplingModule(10.0, rate=1.0)]))
    np.testing.assert_allclose(plain.prob, running.prob, rtol=1e-5)


def test_a_recipe_with_rules_comes_back_from_plain_data() -> None:
    modules = [
        NegativeSamplingModule(0.5), ExaminationSamplingModule((0.9, 0.1)),
        LossSamplingModule(column="pilot"), TimeWindowModule("2024-05-01"), LossSamplingModule(),
    ]  # fmt: skip
    recipe = compose(BASE, modules)
    assert len(recipe.sampler.base.rules) == 4
    known = {**known_parts(), **{cls.__name__: cls for cls in (
        NegativeRule, ExaminationRule, LossRule, TimeWindowRule, RunningLossSampler)}}  # fmt: skip
    assert from_plain(to_plain(recipe), known) == recipe


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, float("nan")])
@pytest.mark.parametrize(
    "module",
    [
        lambda r: NegativeSamplingModule(r),
        lambda r: LossSamplingModule(rate=r),
        lambda r: ExaminationSamplingModule((0.5,), rate=r),
    ],
)
def test_rates_out_of_range_are_refused(module, rate: float) -> None:
    with pytest.raises(ConfigError, match="rate must be above 0"):
        module(rate)


def test_bad_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="one chance"):
        ExaminationSamplingModule((1.2,))
    with pytest.raises(ConfigError, match="start before stop"):
        TimeWindowModule("2024-05-02", "2024-05-01")
    with pytest.raises(ConfigError, match="threshold"):
        LossSamplingModule(threshold=-1.0)
    with pytest.raises(ModuleError, match="before those that sample by the running model"):
        compose(BASE, [LossSamplingModule(), NegativeSamplingModule()])
    bare = replace(SCHEMA, columns={}, side=())
    for module in (ExaminationSamplingModule((0.5,)), LossSamplingModule(column="pilot")):
        with pytest.raises(SchemaError, match="which this recipe needs"):
            Learner(compose(BASE, [module]), bare)
