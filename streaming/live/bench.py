"""``octr bench live``: events per second through the live join."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from streaming.live.rules import JoinRules

HELP = "events per second of the live join, in batches of 8,192 rows on one core"
BATCH = 8192
_S = 1_000_000
_CLICK_RATE = 0.07
_N_NUMBERS, _N_WORDS = 5, 12


@dataclass(frozen=True)
class _Log:
    """Batches in order of their first event time, and what to expect of them."""

    elements: list[tuple[int, pa.RecordBatch]]
    clicks: int
    expected: int


def _made_up(batches: int, rate: float, seed: int) -> _Log:
    """Makes up impressions of 17 features with clicks, half a window late on average."""
    from streaming.live.layout import event_batch, shown_batch
    from streaming.shard_layout import TIME

    rng = np.random.default_rng(seed)
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
    return _Log(elements, clicks, expected)


def _rules() -> JoinRules:
    from streaming.live.rules import JoinRules

    return JoinRules(("click",), (300 * _S,), 300 * _S, 60 * _S, 60 * _S)


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

    log, rules = _made_up(batches, rate, seed), _rules()
    state, joined, at = JoinState(), 0, rules.tick_us
    held = held_bytes = 0
    cpu = time.process_time()
    waiting: list[pa.RecordBatch] = []
    for first, batch in [*log.elements, (int(1e15), log.elements[0][1].slice(0, 0))]:
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
        "events": batches * BATCH + log.clicks,
        "events_per_cpu_second": round((batches * BATCH + log.clicks) / cpu),
        "held": held,
        "held_bytes_per_row": round(held_bytes / max(held, 1), 1),
        "joined": joined,
        "joined_expected": log.expected,
    }


def bench_beam(
    batches: int = 60, rate: float = 2000.0, seed: int = 0, n_partitions: int = 4
) -> dict[str, Any]:
    """Joins the same log through Beam: :class:`streaming.live.join.JoinLive` on one worker.

    A bounded replay holds the whole log before the first timer fires, so it is the most that a
    step of the join ever has to look through.

    Args:
        batches: Batches of impressions.
        rate: Impressions per second of event time.
        seed: Of the log.
        n_partitions: Of the key space.

    Returns:
        As of :func:`bench_live`, without the bytes; ``held`` is all of the log.
    """
    from streaming.live.bench_beam import join_through_beam

    log = _made_up(batches, rate, seed)
    cpu, counts = join_through_beam([batch for _, batch in log.elements], _rules(), n_partitions)
    events = batches * BATCH + log.clicks
    return {
        "events": events,
        "events_per_cpu_second": round(events / cpu),
        "held": counts["rows"],
        "joined": counts["events.click.joined"],
        "joined_expected": log.expected,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``octr bench live``."""
    parser.add_argument("--batches", type=int, default=120, help="of impressions (120)")
    parser.add_argument("--rate", type=float, default=2000.0, help="impressions a second (2,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the log")
    parser.add_argument("--beam", action="store_true", help="through Beam, on its local runner")
    parser.add_argument("--partitions", type=int, default=4, help="with --beam (4)")


def run(args: argparse.Namespace) -> int:
    """Prints the result as JSON; 1 if a click was lost or invented."""
    if args.beam:
        result = bench_beam(args.batches, args.rate, args.seed, args.partitions)
    else:
        result = bench_live(args.batches, args.rate, args.seed)
    print(json.dumps(result, indent=1))
    return int(result["joined"] != result["joined_expected"])
