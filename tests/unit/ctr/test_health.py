"""Monitors: quiet on sound streams, loud on broken ones, and no memory of what is broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ctr.data.examples import Block
from ctr.encoding import Encoder
from ctr.errors import ConfigError
from ctr.health import HealthConfig, HealthMonitor
from ctr.simulator import WorldConfig, simulate_examples

N, WINDOW = 40_000, 1000
WORLD = WorldConfig(days=2.0, n_users=300, n_queries=64, n_ads=256, n_advertisers=32, n_topics=4,
                    dim=4, daily_cycle=0.1, shift_logit=0.0)  # fmt: skip
CONFIG = HealthConfig(window=WINDOW, burn_in=8)


@pytest.fixture(scope="module", params=[1, 2])
def stream(request: pytest.FixtureRequest):
    """The encoder, all rows as one block and the true probabilities float32[n, 1]."""
    simulated = simulate_examples(N, request.param, WORLD)
    table = simulated.examples.combine_chunks().to_batches()[0]
    encoder = Encoder(simulated.schema, 1 << 18)
    encoded = encoder.encode(table)
    label = table.column("click").to_numpy(zero_copy_only=False).astype(np.float32)[:, None]
    time = table.column("event_time").cast(pa.int64()).to_numpy(zero_copy_only=False)
    block = Block(encoded.ids, encoded.numeric, label, np.ones(N, np.float32), time, None, {},
                  table.select(["example_id", *simulated.schema.slices]))  # fmt: skip
    p = simulated.truth.column("p_click").to_numpy().astype(np.float32)[:, None]
    return encoder, block, p


def watch(monitor: HealthMonitor, block: Block, p: np.ndarray, low: int = 0, high: int = N):
    """Returns the windows that ended in alarm."""
    found = []
    for at in range(low, high, WINDOW):
        monitor.observe([block.cut(at, at + WINDOW)], p[at : at + WINDOW])
        if not monitor.healthy:
            found.append(at)
    return found


def test_a_sound_stream_is_quiet(stream) -> None:
    monitor = HealthMonitor(stream[0], CONFIG)
    assert watch(monitor, *stream[1:]) == []
    assert monitor.windows == N // WINDOW


def flipped(block: Block, p):
    return replace(block, labels=1.0 - block.labels), p


def feature_gone(block: Block, p):
    monitor_empty = block.ids.copy()
    monitor_empty[:, 0] = EMPTY
    return replace(block, ids=monitor_empty), p


def number_gone(block: Block, p):
    return replace(block, numeric=np.full_like(block.numeric, np.nan)), p


def strangers(block: Block, p):
    ids = block.ids.copy()
    ids[:, 1] = (ids[:, 1].astype(np.int64) * 31 + 17) % ((1 << 18) - 1) + 1
    return replace(block, ids=ids), p


def too_high(block: Block, p):
    return block, np.minimum(3.0 * p, 0.99)


def not_finite(block: Block, p):
    p = p.copy()
    p[::100] = np.nan
    return block, p


EMPTY = 0


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (flipped, "base_rate"),
        (feature_gone, "missing of"),
        (number_gone, "missing of bid"),
        (strangers, "new_ids of"),
        (too_high, "calibration"),
        (not_finite, "not finite"),
    ],
)
def test_faults_are_seen_in_the_first_window(stream, fault, name: str) -> None:
    global EMPTY
    encoder, block, p = stream
    monitor = HealthMonitor(encoder, CONFIG)
    EMPTY = int(monitor._empty[0])
    half = N // 2
    assert watch(monitor, block, p, 0, half) == []
    broken, q = fault(block, p)
    assert watch(monitor, broken, q, half, half + WINDOW) == [half]
    assert any(name in alarm for alarm in monitor.alarms), monitor.alarms
    watch(monitor, broken, q, half + WINDOW, half + 3 * WINDOW)
    # Sound windows end it; the broken ones did not become the measure.
    after = watch(monitor, block, p, half + 3 * WINDOW, half + 9 * WINDOW)
    assert len(after) <= 3
    assert monitor.healthy


def test_state_goes_on_where_it_was(stream) -> None:
    encoder, block, p = stream
    whole, first = (HealthMonitor(encoder, CONFIG) for _ in range(2))
    watch(whole, block, p)
    cut = N // 2 + 300
    for at in range(0, cut, 100):
        first.observe([block.cut(at, at + 100)], p[at : at + 100])
    second = HealthMonitor(encoder, CONFIG)
    second.load_state(first.state_dict())
    for at in range(cut, N, 100):
        second.observe([block.cut(at, at + 100)], p[at : at + 100])
    ours, theirs = second.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_refusals() -> None:
    for bad in ({"window": 0}, {"burn_in": 2}, {"false_alarms": 0.0}):
        with pytest.raises(ConfigError, match="health"):
            HealthConfig(**bad)
