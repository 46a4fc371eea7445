"""``octr bench live``: events per second through the live join."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import pyarrow as pa

HELP = "events per second of the live join, in batches of 8,192 rows on one core"
BATCH = 8192
_S = 1_000_000
_CLICK_RATE = 0.07
_N_NUMBERS, _N_WORDS = 5, 12


def bench_live(batches: int = 60, rate: float = 2000.0, seed: int = 0) -> dict[str, Any]:
    """Joins made-up impressions of 17 features with clicks, half a window late on average.

    Args:
        batches: Batches of impressions.
        rate: Impressions per second of event time; with the horizon it decides what is held.
        seed: Of the log.

    Returns:
        ``events_per_cpu_second``, impressions and clicks together; ``held``, the largest number
        of impressions in hand, and ``held_bytes_per_row``; ``joined`` and ``joined_expected``.
    """
    # Beam comes with it, which no help text should wait for.
    from streaming.live.attribution import JoinState, advance
    from streaming.live.layout import event_batch, shown_batch
    from streaming.live.rules import JoinRules
    from streaming.shard_layout import TIME

    rng = np.random.default_rng(seed)
    rules = JoinRules(("click",), (300 * _S,), 300 * _S, 60 * _S, 60 * _S)
    words = pa.array([f"{value:08x}" for value in rng.integers(0, 1 << 32, 20_000)])
    elements: list[tuple[int, pa.RecordBatch]] = []
    expected = clicks = 0
    for k in range(batches):
        times = ((k * BATCH + np.sort(rng.random(BATCH)) * BATCH) / rate * _S).astype(np.int64)
        keys = pa.array(np.char.add(f"r{k}-", np.arange(BATCH).astype("U")))
        columns: dict[str, pa.Array] = {
            "example_id": keys,
            "event_time": pa.array(times).cast(TIME),
        }
        for i in range(_N_NUMBERS):
            columns[f"n{i}"] = pa.array(rng.random(BATCH, np.float32))
        for i in range(_N_WORDS):
            columns[f"w{i}"] = words.take(pa.array(rng.integers(0, len(words), BATCH)))
        columns |= {
            "click": pa.array(np.zeros(BATCH, np.int8)),
            "click_time": pa.nulls(BATCH, TIME),
        }
        elements.append(
            (int(times[0]), shown_batch(pa.RecordBatch.from_pydict(columns), keys, times))
        )
        hit = np.flatnonzero(rng.random(BATCH) < _CLICK_RATE)
        delay = (rng.random(len(hit)) * 400 * _S).astype(np.int64)
        expected += int((delay <= 300 * _S).sum())
        clicks += len(hit)
        when = times[hit] + delay
        elements.append((int(when.min(initial=0)), event_batch(keys.take(pa.array(hit)), when, 0)))
    state, joined, at = JoinState(), 0, rules.tick_us
    held = held_bytes = 0
    cpu = time.process_time()
    waiting: list[pa.RecordBatch] = []
    for first, batch in [*elements, (int(1e15), elements[0][1].slice(0, 0))]:
        if first > at:
            shown, events = (
                [b for b in waiting if (b.num_columns == 4) == one] for one in (False, True)
            )
            # The next batch begins here, so nothing before is still to come.
            at = rules.tick_after(min(first, at + 10**9 * rules.tick_us))
            step = advance(state, shown, events, at - rules.tick_us, rules)
            state, waiting = step.state, []
            joined += step.counts["events.click.joined"]
            if state.held is not None and state.held.num_rows > held:
                held, held_bytes = state.held.num_rows, state.held.nbytes
        waiting.append(batch)
    cpu = time.process_time() - cpu
    return {
        "events": batches * BATCH + clicks,
        "events_per_cpu_second": round((batches * BATCH + clicks) / cpu),
        "held": held,
        "held_bytes_per_row": round(held_bytes / max(held, 1), 1),
        "joined": joined,
        "joined_expected": expected,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``octr bench live``."""
    parser.add_argument("--batches", type=int, default=120, help="of impressions (120)")
    parser.add_argument("--rate", type=float, default=2000.0, help="impressions a second (2,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the log")


def run(args: argparse.Namespace) -> int:
    """Prints the result of :func:`bench_live` as JSON; 1 if a click was lost or invented."""
    result = bench_live(args.batches, args.rate, args.seed)
    print(json.dumps(result, indent=1))
    return int(result["joined"] != result["joined_expected"])
