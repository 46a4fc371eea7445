"""Slices: quiet where chance alone is at work, loud where one slice is miscalibrated."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from ctr.data.examples import Block
from ctr.encoding import Encoder
from ctr.health import HealthConfig, HealthMonitor
from ctr.schema import Feature, Label, Schema
from ctr.slice_calibration import SliceCalibration

DEVICES = np.array(["phone", "desk", "tablet", "tv", "watch"])
SHARES = (0.4, 0.3, 0.2, 0.08, 0.02)
SCHEMA = Schema("s", (Feature("device"),), (Label("click"),), slices=("device",))
WINDOW, WINDOWS = 2000, 40


def draw(n: int, rate: float, seed: int):
    """Returns devices, probabilities and clicks that follow them."""
    rng = np.random.default_rng(seed)
    device = rng.choice(len(DEVICES), n, p=SHARES)
    prob = np.clip(rng.gamma(2.0, rate / 2.0, n), 0.001, 0.9)
    return device, prob, (rng.random(n) < prob).astype(np.float64)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_standard_normal_under_chance(rate: float) -> None:
    found = []
    for seed in range(400):
        device, prob, label = draw(WINDOW, rate, seed)
        slices = SliceCalibration(["device"])
        frame = pa.RecordBatch.from_pydict({"device": DEVICES[device]})
        scores = np.column_stack([prob, label, np.ones(WINDOW)])
        found.append(slices.measure(slices.encode(frame), scores)[0][0])
    assert abs(np.mean(found)) < 0.2
    assert 0.85 < np.std(found) < 1.15
    assert max(found) < 4.5


def test_a_wrong_level_of_everything_is_not_its_business() -> None:
    device, prob, label = draw(20_000, 0.1, 1)
    slices = SliceCalibration(["device"])
    codes = slices.encode(pa.RecordBatch.from_pydict({"device": DEVICES[device]}))
    ones = np.ones(len(prob))
    right, _ = slices.measure(codes, np.column_stack([prob, label, ones]))
    double, _ = slices.measure(codes, np.column_stack([2.0 * prob, label, ones]))
    assert double[0] == pytest.approx(right[0], abs=0.3)


def test_unknown_labels_and_windows_without_clicks() -> None:
    slices = SliceCalibration(["device"])
    codes = slices.encode(pa.RecordBatch.from_pydict({"device": DEVICES[[0, 1, 0]]}))
    for label in (-1.0, 0.0):
        scores = np.column_stack([np.full(3, 0.5), np.full(3, label), np.ones(3)])
        assert slices.measure(codes, scores)[0] == [0.0]


def watched(seed: int, factor: float, from_window: int) -> list[list[str]]:
    """Returns the alarms after each window; from one on, predictions for tablets are too high."""
    device, prob, label = draw(WINDOW * WINDOWS, 0.1, seed)
    frame = pa.RecordBatch.from_pydict({"device": DEVICES[device]})
    encoder = Encoder(SCHEMA, 1 << 10)
    n = len(prob)
    block = Block(
        encoder.encode(frame).ids, np.zeros((n, 0), np.float32), label[:, None].astype(np.float32),
        np.ones(n, np.float32), np.arange(n), None, {}, frame,
    )  # fmt: skip
    served = prob.copy()
    wrong = (device == 2) & (np.arange(n) >= from_window * WINDOW)
    served[wrong] = np.minimum(factor * served[wrong], 0.99)
    monitor = HealthMonitor(encoder, HealthConfig(window=WINDOW))
    found = []
    for at in range(0, n, WINDOW):
        part = served[at : at + WINDOW, None].astype(np.float32)
        monitor.observe([block.cut(at, at + WINDOW)], part)
        found.append(monitor.alarms)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_one_miscalibrated_slice_fires_in_the_first_window(seed: int) -> None:
    """Predictions three times too high for a fifth of the traffic, 400 of 2,000 examples."""
    alarms = watched(seed, 3.0, 30)
    assert not any(alarms[:30])
    told = [alarm for alarm in alarms[30] if alarm.startswith("calibration by device")]
    assert len(told) == 1, alarms[30]
    assert "device = tablet, predicted / observed" in told[0]


def test_sound_streams_are_quiet() -> None:
    """6 x 26 windows with a chance of 0.001 each: two alarms would be a chance of 1 %."""
    started = 0
    for seed in range(6):
        alarms = watched(10 + seed, 1.0, 0)
        started += sum(bool(b) and not a for a, b in itertools.pairwise(alarms))
    assert started <= 1


def test_state_goes_on_where_it_was() -> None:
    slices, again = SliceCalibration(["device"]), SliceCalibration(["device"])
    slices.encode(pa.RecordBatch.from_pydict({"device": ["b", "a"]}))
    again.load_state(slices.state_dict())
    frame = pa.RecordBatch.from_pydict({"device": ["a", "c", "b"]})
    np.testing.assert_array_equal(again.encode(frame), slices.encode(frame))
    np.testing.assert_array_equal(slices.encode(frame)[:, 0], [1, 2, 0])
