"""Small made-up impressions and events, and what the live join has to make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.live.layout import event_batch, shown_batch
from streaming.live.rules import JoinRules
from streaming.shard_layout import TIME

S = 1_000_000
LABELS = ("click", "buy")


def rules(wait_s: int, lateness_s: int = 10_000, tick_s: int = 1) -> JoinRules:
    """Windows of 10 s for clicks and 40 s for buys."""
    return JoinRules(LABELS, (10 * S, 40 * S), wait_s * S, lateness_s * S, tick_s * S)


@dataclass(frozen=True, order=True)
class Shown:
    """An impression."""

    time_s: int
    key: str
    user: str = "u"


@dataclass(frozen=True, order=True)
class Event:
    """An event of label ``kind``."""

    time_s: int
    key: str
    kind: int = 0


Element = Shown | Event


def batches(elements: Iterable[Element]) -> list[pa.RecordBatch]:
    """Returns one batch per kind, empty kinds left out."""
    elements = list(elements)
    found = []
    shown = [e for e in elements if isinstance(e, Shown)]
    if shown:
        times = np.array([e.time_s * S for e in shown], np.int64)
        keys = pa.array([e.key for e in shown])
        zeros = pa.array(np.zeros(len(shown), np.int8))
        columns = {"example_id": keys, "event_time": pa.array(times).cast(TIME)}
        columns["user"] = pa.array([e.user for e in shown])
        for label in LABELS:
            columns |= {label: zeros, f"{label}_time": pa.nulls(len(shown), TIME)}
        found.append(shown_batch(pa.RecordBatch.from_pydict(columns), keys, times))
    for kind in range(len(LABELS)):
        events = [e for e in elements if isinstance(e, Event) and e.kind == kind]
        if events:
            times = np.array([e.time_s * S for e in events], np.int64)
            found.append(event_batch(pa.array([e.key for e in events]), times, kind))
    return found


def tuples(rows: Iterable[pa.RecordBatch]) -> Counter[tuple]:
    """Returns rows that left the join as a multiset of tuples, times in seconds."""
    found: Counter[tuple] = Counter()
    for batch in rows:
        for row in batch.to_pylist():
            times = tuple(row[f"{x}_time"] and int(row[f"{x}_time"].timestamp()) for x in LABELS)
            at = int(row["event_time"].timestamp())
            labels = tuple(row[x] for x in LABELS)
            found[(row["example_id"], row["user"], at, labels, times, row["correction"])] += 1
    return found


def expected(elements: Sequence[Element], rules: JoinRules) -> Counter[tuple]:
    """Returns examples and corrections, worked out from all elements at once."""
    wait = rules.wait_us // S
    found: Counter[tuple] = Counter()
    for key in {e.key for e in elements if isinstance(e, Shown)}:
        first = min(e for e in elements if isinstance(e, Shown) and e.key == key)
        labels, times = [], []
        for kind, window in enumerate(rules.windows_us):
            hits = [
                e.time_s
                for e in elements
                if isinstance(e, Event) and e.key == key and e.kind == kind
                and 0 <= e.time_s - first.time_s <= window // S
            ]  # fmt: skip
            hit = min(hits, default=None)
            in_time = hit is not None and hit <= first.time_s + wait
            labels.append(int(in_time))
            times.append(hit if in_time else None)
            if hit is not None and not in_time:
                one = tuple(1 if k == kind else None for k in range(len(LABELS)))
                when = tuple(hit if k == kind else None for k in range(len(LABELS)))
                found[(key, first.user, hit - wait, one, when, 1)] += 1
        found[(key, first.user, first.time_s, tuple(labels), tuple(times), 0)] += 1
    return found
