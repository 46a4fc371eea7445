import dataclasses

import numpy as np
import pytest

from ctr.simulator import LabelSpec, WorldConfig, simulate_examples
from ctr.simulator.config import LABELS
from ctr.simulator.stream import open_stream

NAMES = [label.name for label in LABELS]


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize("name", NAMES)
def test_truth_is_calibrated(labels, truth, name):
    p = truth[f"p_{name}"].astype(float)
    deviation = np.sqrt((p * (1 - p)).sum())
    assert abs(labels[name].sum() - p.sum()) < 4 * deviation


@pytest.mark.parametrize("name", NAMES)
def test_truth_is_calibrated_in_every_fifth_of_its_range(labels, truth, name):
    p = truth[f"p_{name}"].astype(float)
    for part in np.array_split(np.argsort(p), 5):
        deviation = np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(labels[name][part].sum() - p[part].sum()) < 4.5 * deviation


@pytest.mark.parametrize("label", LABELS, ids=NAMES)
def test_rates_are_as_configured(truth, label):
    in_window = label.in_window()
    in_window *= LABELS[0].in_time(label.window_s) if label.after_click else 1
    found = float(truth[f"p_{label.name}"].mean())
    assert found == pytest.approx(label.rate * in_window, rel=0.1)


def test_the_oracle_beats_the_base_rate_by_a_wide_margin(labels, truth):
    for name, margin in {"click": 0.2, "conversion": 0.2, "like": 0.1, "share": 0.08}.items():
        y, p = labels[name], truth[f"p_{name}"].astype(float)
        rate = y.mean()
        base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        bayes = -np.where(y, np.log(p), np.log1p(-p)).mean()
        assert bayes < (1 - margin) * base


def test_examination_curve_is_recovered_by_ratio(simulated, labels, truth, config):
    position = simulated.examples["position"].to_numpy()
    attraction = sigmoid(
        truth["quality_logit"] + truth["presentation_logit"] + truth["base_offset"]
    )
    in_window = config.labels[0].in_window()
    for index, known in enumerate(config.examination):
        at = position == index + 1
        expected = float(attraction[at].sum()) * in_window
        found = labels["click"][at].sum() / expected
        assert found == pytest.approx(known, abs=4 * np.sqrt(known / expected))
    np.testing.assert_array_equal(
        truth["examination"], np.array(config.examination, np.float32)[position - 1]
    )


def test_click_probability_is_the_published_formula(truth, config):
    logit = truth["quality_logit"] + truth["presentation_logit"] + truth["base_offset"]
    expected = truth["examination"] * sigmoid(logit) * config.labels[0].in_window()
    np.testing.assert_allclose(truth["p_click"], expected, rtol=1e-5)


def test_treatments_carry_their_known_logits(simulated, truth, config):
    names = simulated.examples["treatment"].to_numpy(zero_copy_only=False)
    for name, logit in zip(config.treatments, config.treatment_logits, strict=True):
        assert set(truth["presentation_logit"][names == name].tolist()) == {
            float(np.float32(logit))
        }


def test_the_shift_is_visible_in_the_base_rate_and_in_the_clicks(simulated, labels, truth, config):
    time_us = simulated.examples["event_time"].cast("int64").to_numpy()
    day = (time_us / 1e6 - config.start_s) / 86400.0
    before = (day > config.shift_day - 1) & (day < config.shift_day)
    after = (day >= config.shift_day) & (day < config.shift_day + 1)
    jump = truth["base_offset"][after].mean() - truth["base_offset"][before].mean()
    assert jump == pytest.approx(config.shift_logit + config.base_drift_per_day, abs=0.02)
    clicks = labels["click"]
    assert clicks[after].mean() > 1.15 * clicks[before].mean()


def test_labels_are_related_inside_their_groups_only(truth, config):
    columns = ["quality_logit", *(f"affinity_{name}" for name in NAMES[1:])]
    found = np.corrcoef([truth[column] for column in columns])
    rho = np.array([label.relatedness for label in config.labels])
    group = np.array([label.group for label in config.labels])
    same = group[:, None] == group[None, :]
    off = ~np.eye(len(rho), dtype=bool)
    np.testing.assert_allclose(found[same & off], np.outer(rho, rho)[same & off], atol=0.06)
    assert np.abs(found[~same]).max() < 0.05


def test_relatedness_reaches_the_events(simulated, labels):
    # Within one position, since all events share the examination of their impression.
    top = simulated.examples["position"].to_numpy() == 1

    def lift(a, b):
        both = (labels[a] & labels[b])[top].mean()
        return both / (labels[a][top].mean() * labels[b][top].mean())

    assert lift("like", "share") > 1.5
    assert lift("click", "conversion") > 5
    assert 0.85 < lift("click", "like") < 1.15


def test_later_events_need_a_click_and_never_come_before_it():
    stream = open_stream(120_000, 11, WorldConfig())
    for _, outcomes in stream:
        for index, label in enumerate(LABELS):
            if label.after_click:
                assert not (outcomes.happened[index] & ~outcomes.happened[0]).any()
                event = outcomes.happened[index]
                assert (outcomes.delay_ms[index] >= outcomes.delay_ms[0])[event].all()


@pytest.mark.parametrize("index", [0, 3], ids=["click", "conversion"])
def test_the_known_share_of_events_comes_inside_the_window(index):
    label = LABELS[index]
    happened = inside = 0
    for _, outcomes in open_stream(400_000, 12, WorldConfig()):
        happened += outcomes.happened[index].sum()
        inside += outcomes.label[index].sum()
    share = label.in_window() * (LABELS[0].in_time(label.window_s) if label.after_click else 1)
    assert 0.8 < share < 0.995
    assert inside / happened == pytest.approx(
        share, abs=4 * np.sqrt(share * (1 - share) / happened)
    )


def test_a_world_without_interactions_has_a_flatter_truth():
    plain = WorldConfig(query_match=0.0, user_match=0.0)
    flat = simulate_examples(40_000, 1, plain).truth["quality_logit"].to_numpy()
    rich = simulate_examples(40_000, 1).truth["quality_logit"].to_numpy()
    assert flat.std() < 0.8 * rich.std()


def test_one_label_is_enough():
    config = WorldConfig(labels=(LabelSpec("click", "only", 0.2),))
    simulated = simulate_examples(8_000, 0, config)
    assert simulated.examples["click"].to_numpy().mean() == pytest.approx(0.2, abs=0.03)
    assert "long_dwell" not in simulated.examples.column_names


def test_relatedness_is_what_the_configuration_says_it_is():
    labels = tuple(dataclasses.replace(x, relatedness=0.2) for x in LABELS)
    truth = simulate_examples(60_000, 2, WorldConfig(labels=(LABELS[0], *labels[1:]))).truth
    found = np.corrcoef(truth["affinity_like"].to_numpy(), truth["affinity_share"].to_numpy())
    assert abs(found[0, 1] - 0.04) < 0.05
