"""Large-batch optimizers: each rule by hand, the schedule, the guard of the table, the search."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from ctr.errors import ConfigError
from ctr.models import Mlp
from ctr.module import compose
from ctr.optimizers import KerasOptimizer
from ctr.recipe import Recipe
from ctr.testing import module_checks
from research_modules.large_batch import LargeBatch, TableAsLayer, TowerRule
from research_modules.large_batch.digits import tuned
from research_modules.large_batch.rules import RULES, RuleState, Settings, scheduled_rate
from research_modules.large_batch.stream import OnePass
from research_modules.large_batch.trials import expected_best, of_replay, summary, table

RECIPE = Recipe(model=Mlp(dim=4, hidden=(8,)), batch_size=64, table_rows=2048)
RNG = np.random.default_rng(0)
W, G = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))


@pytest.mark.parametrize(
    "check", module_checks(LargeBatch("lamb", 0.01, tables="layer", weight_decay=1e-3)), ids=str
)
def test_contract(check):
    check()


def walk(name, gradients, start=W, **settings):
    """Returns the values after each step."""
    variable = tf.Variable(tf.constant(start, tf.float32))
    state = RuleState(name, Settings(**settings), [variable])
    values = []
    for gradient in gradients:
        state.apply([tf.constant(gradient, tf.float32)])
        values.append(variable.numpy())
    return values


def test_nesterov_by_hand_over_two_steps():
    rate, mu, decay = 0.1, 0.8, 0.05
    found = walk("nesterov", [G, 2 * G], rate=rate, one_minus_beta1=1 - mu, weight_decay=decay)
    w, v = W.copy(), 0.0
    for gradient, ours in zip((G, 2 * G), found, strict=True):
        full = gradient + decay * w
        v = mu * v + full
        w = w - rate * (mu * v + full)
        np.testing.assert_allclose(ours, w, rtol=1e-5)


def test_without_momentum_it_is_sgd():
    (found,) = walk("nesterov", [G], rate=0.1, one_minus_beta1=1.0)
    np.testing.assert_allclose(found, W - 0.1 * G, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_first_step_of_lars_is_as_long_as_the_layers_norm_says(scale):
    (found,) = walk("lars", [scale * G], rate=2.0, eeta=0.01)
    step = W - found
    assert np.linalg.norm(step) == pytest.approx(2.0 * 0.01 * np.linalg.norm(W), rel=1e-4)
    np.testing.assert_allclose(step / np.linalg.norm(step), G / np.linalg.norm(G), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_every_step_of_lamb_is_the_rate_times_the_norm(scale):
    found = [W, *walk("lamb", [scale * G, -scale * G, scale * W], rate=0.05, weight_decay=0.01)]
    for before, after in itertools.pairwise(found):
        length = np.linalg.norm(after - before)
        assert length == pytest.approx(0.05 * np.linalg.norm(before), rel=1e-4)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_norm_of_zero_means_a_ratio_of_one(name):
    plain = {"lars": "nesterov", "lamb": "adam"}[name]
    for start, gradient in ((0 * W, G), (W, 0 * G)):
        ours, theirs = (
            walk(n, [gradient], start, rate=0.1, one_minus_beta1=1.0) for n in (name, plain)
        )
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "plain"), [("lamb", "adam"), ("lars", "lars")])
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_the_skip_list_has_neither_decay_nor_ratio(name, plain, shape):
    start, series = np.ones(shape), [RNG.normal(size=shape) for _ in range(3)]
    ours = walk(name, series, start, rate=0.1, weight_decay=0.5)[-1]
    if name == "lars":
        velocity, expected = 0.0, start
        for gradient in series:
            velocity = 0.9 * velocity + 0.1 * gradient
            expected = expected - velocity
    else:
        expected = walk(plain, series, start, rate=0.1, weight_decay=0.0)[-1]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_adam_is_keras_adam():
    ours = tf.Variable(tf.constant(W, tf.float32))
    theirs = tf.Variable(tf.constant(W, tf.float32))
    mine = TowerRule("adam", 0.01, beta2=0.999, epsilon=1e-7).build([ours])
    keras = KerasOptimizer("Adam", 0.01).build([theirs])
    for _ in range(5):
        gradient = [tf.constant(RNG.normal(size=W.shape), tf.float32)]
        mine.apply(gradient)
        keras.apply(gradient)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)


def test_the_two_forms_of_lars_differ_unless_gradient_and_weights_are_parallel():
    across = G - W * (G * W).sum() / (W * W).sum()
    for gradient, ratio in (
        (across, np.hypot(1.0, 0.5) / 1.5),
        (W / np.linalg.norm(W) * np.linalg.norm(across), 1.0),
    ):
        decay = 0.5 * np.linalg.norm(across) / np.linalg.norm(W)
        lengths = [
            np.linalg.norm(W - walk("lars", [gradient], rate=1.0, weight_decay=decay, summed=s)[0])
            for s in (True, False)
        ]
        assert lengths[0] / lengths[1] == pytest.approx(ratio, rel=1e-3)


def test_rates_inside_and_outside_the_buffer_differ_once_the_rate_changes():
    """LARS on a vector is heavy ball with the rate inside; old gradients keep their old rate."""
    found = walk("lars", [[1.0], [0.0]], [0.0], rate=1.0, total=1, power=1.0, end=0.0, warmup=0.0)
    # Rates 1 and 1/2: the old gradient moves on by 0.9 times its own rate of 1.
    np.testing.assert_allclose(found, [[-1.0], [-1.9]], rtol=1e-5)


def test_the_schedule_at_its_corners():
    settings = Settings(10.0, warmup=50, total=100, end=1e-4)
    rates = [float(scheduled_rate(settings, tf.constant(t))) for t in (0, 1, 2, 50, 101)]
    np.testing.assert_allclose(rates, [0.0, 0.2, 0.4, 10.0, 1e-4], rtol=1e-5)
    endless = dataclasses.replace(TowerRule(), rate=3.0, warmup=4)
    state = Settings(endless.rate, warmup=endless.warmup)
    assert [float(scheduled_rate(state, tf.constant(t))) for t in (2, 4, 10**6)] == [1.5, 3.0, 3.0]


@pytest.mark.parametrize("name", RULES)
def test_ids_that_occur_twice_count_as_in_a_dense_gradient(name):
    ours, theirs = (tf.Variable(tf.constant(RNG.normal(size=(6, 2)), tf.float32)) for _ in "ab")
    theirs.assign(ours)
    rule = TowerRule(name, 0.1, weight_decay=0.01)
    rows, lines = tf.constant([1, 4, 1]), tf.constant(RNG.normal(size=(3, 2)), tf.float32)
    layer, dense = TableAsLayer(rule).build(ours, 1), rule.build([theirs])
    full = np.zeros((6, 2), np.float32)
    np.add.at(full, rows.numpy(), lines.numpy())
    for _ in range(2):
        layer.apply(rows, tf.gather(ours, rows), lines)
        dense.apply([tf.constant(full)])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-7)
    layer.clear(tf.constant([1]))
    assert not layer.state.slots[0][0].numpy()[1].any()


def test_tables_keep_their_row_optimizer_unless_asked_otherwise():
    recipe = compose(RECIPE, [LargeBatch("lars", 5.0)])
    assert recipe.optimizer.embedding is RECIPE.optimizer.embedding
    assert recipe.optimizer.tower == TowerRule("lars", 5.0)
    layer = compose(RECIPE, [LargeBatch("lars", 5.0, tables="layer", table_rate=2.0)])
    assert layer.optimizer.embedding == TableAsLayer(TowerRule("lars", 2.0))


def test_the_expected_best_of_n_falls_from_the_mean_to_the_best():
    scores = [3.0, 1.0, 2.0, 6.0]
    assert expected_best(scores, 1) == pytest.approx(3.0)
    assert expected_best(scores, 10_000) == pytest.approx(1.0)
    pairs = [min(pair) for pair in itertools.product(scores, repeat=2)]
    assert expected_best(scores, 2) == pytest.approx(np.mean(pairs))
    falling = [expected_best(scores, n) for n in range(1, 20)]
    assert (np.diff(falling) <= 0).all()


def test_a_summary_counts_what_failed_and_sees_the_edge():
    space = {"a": {"low": 1e-3, "high": 1.0, "log": True}, "b": ["x", "y"]}
    choices = [{"a": a, "b": "x"} for a in (0.9, 0.03, 0.01, 0.2)]
    found = summary([0.1, None, 5.0, float("nan")], choices, space, limit=2.0)
    assert (found.best, found.at_edge, found.trials) == (0.1, ["a"], 4)
    assert found.diverged == 0.75
    assert found.expected[1] == pytest.approx((0.1 + 2.0 + 5.0 + 2.0) / 4)
    assert "75%" in table({"one": found})
    with pytest.raises(ConfigError, match="every trial"):
        summary([None], choices[:1], space)


def test_a_replay_that_tuned_can_be_summarised(tmp_path):
    trials = [{"choice": {"modules.large_batch.rate": r}, "score": s}
              for r, s in ((0.1, 0.5), (0.2, 0.4), (0.3, None))]  # fmt: skip
    ranges = {"modules.large_batch.rate": {"low": 0.0, "high": 0.21}}
    report = {
        "tuned": {"lars": {"choice": {}, "trials": trials}, "base": {"trials": []}},
        "experiment": {"tune": {}, "arms": [{"name": "lars", "tune": ranges}]},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    found = of_replay(tmp_path)
    assert set(found) == {"lars"}
    assert (found["lars"].best, found["lars"].at_edge) == (0.4, ["modules.large_batch.rate"])
    with pytest.raises(ConfigError, match="tune"):
        of_replay(tmp_path / "nothing")


def test_trials_matter_more_than_the_optimizer_on_digits():
    found = {name: tuned(name, 256, 60, 8, 1) for name in ("adam", "lamb")}
    best = [one["found"].best for one in found.values()]
    one_trial = [one["found"].expected[1] for one in found.values()]
    assert max(best) < 0.5
    assert min(one_trial) - max(best) > abs(best[0] - best[1])


def test_a_study_starts_every_trial_afresh():
    one = OnePass("adam", 1024, 32_768)
    choice = {"rate": 0.003, "one_minus_beta1": 0.1, "weight_decay": 0.0, "warmup": 0.1,
              "table": 0.1}  # fmt: skip
    first = one.run(choice, 0)
    assert one.run({**choice, "table": 0.5}, 0) != first
    assert one.run(choice, 0) == first


@pytest.mark.parametrize(
    "wrong",
    [{"optimizer": "sgd"}, {"variant": "keras"}, {"tables": "all"}, {"rate": 0.0},
     {"one_minus_beta1": 0.0}, {"weight_decay": -1.0}, {"total_steps": 5, "warmup_steps": 5},
     {"table_rate": 0.1}, {"epsilon": 0.0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LargeBatch(**wrong)
