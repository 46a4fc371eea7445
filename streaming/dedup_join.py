"""De-duplication and the join of events to impressions, on slim key batches.

Every impression sends only (128-bit key, event time, place in the stage) and every event (key,
time, which label), all partitioned by ``key % P``. A partition therefore sees
everything about its keys, whatever the distance in time, and can tell a late event from an
orphan exactly. What comes out are verdicts about single rows: dropped, or a label's time. Rows
without a verdict stand as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput
from numpy.typing import NDArray

from ctr.hashing import fingerprint64
from streaming.source import Events
from streaming.spill import Spilled

IMPRESSION = 0
#: A label time that says "none".
NO_TIME = np.iinfo(np.int64).min
#: Appended to a key for the second 64 bits of its hash.
_SECOND = "\x1f2"

Ints = NDArray[np.int64]


def key_batches(
    keys: pa.Array, times: Ints, kind: int, part: int, n_partitions: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields ``(partition, batch)`` with the keys of one block.

    Args:
        keys: string[n].
        times: int64[n] event times, microseconds.
        kind: ``IMPRESSION``, or 1 + the index of the event log.
        part: Number of the staged part whose rows 0..n-1 these are (impressions).
        n_partitions: Partitions of the key space.
    """
    if len(keys) == 0:
        return
    low = fingerprint64(keys)
    high = fingerprint64(pc.binary_join_element_wise(keys, pa.scalar(_SECOND), ""))
    n_rows = len(keys)
    columns: dict[str, NDArray[Any]] = {
        "low": low,
        "high": high,
        "time": times,
        "kind": np.full(n_rows, kind, np.int16),
        "part": np.full(n_rows, part, np.int64),
        "row": np.arange(n_rows, dtype=np.int32),
    }
    partition = (low % np.uint64(n_partitions)).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    edges = np.searchsorted(partition[order], np.arange(n_partitions + 1))
    for p in range(n_partitions):
        rows = order[edges[p] : edges[p + 1]]
        if len(rows):
            yield p, pa.RecordBatch.from_pydict({n: pa.array(c[rows]) for n, c in columns.items()})


def resolve(
    batches: Iterable[pa.RecordBatch], events: tuple[Events, ...]
) -> tuple[pa.RecordBatch, Counter[str]]:
    """Decides about all rows of one partition, in a way that does not depend on their order.

    The earliest impression of a key stays (ties: the first in the log). An event counts for the
    impression of its key from the impression's time to ``window_s`` later, ends included; the
    earliest such event gives the label's time.

    Args:
        batches: Key batches of one partition.
        events: The event logs.

    Returns:
        Verdicts ``part, row, time, dropped, label_0, label_1, ...`` (label times, ``NO_TIME`` for
        none), and counts.
    """
    table = pa.Table.from_batches(list(batches))
    columns = {name: table.column(name).to_numpy() for name in table.schema.names}
    group = group_keys(columns["low"], columns["high"])
    shown = np.flatnonzero(columns["kind"] == IMPRESSION)
    order = np.lexsort(
        (columns["row"][shown], columns["part"][shown], columns["time"][shown], group[shown])
    )
    shown = shown[order]
    first = np.ones(len(shown), np.bool_)
    first[1:] = group[shown[1:]] != group[shown[:-1]]
    counts = Counter({"duplicates": int((~first).sum())})
    kept = shown[first]
    impression_of = np.full(int(group.max()) + 1, -1, np.int64)
    impression_of[group[kept]] = kept
    label_times = np.full((len(events), len(group)), NO_TIME, np.int64)
    for i, event in enumerate(events):
        rows = np.flatnonzero(columns["kind"] == i + 1)
        impressions, times = _join(rows, group, columns["time"], impression_of, event, counts)
        label_times[i, impressions] = times
    touched = np.zeros(len(group), np.bool_)
    touched[shown[~first]] = True
    touched |= (label_times != NO_TIME).any(axis=0)
    at = np.flatnonzero(touched)
    dropped = np.zeros(len(group), np.bool_)
    dropped[shown[~first]] = True
    verdicts = {name: columns[name][at] for name in ("part", "row", "time")}
    verdicts["dropped"] = dropped[at]
    for i in range(len(events)):
        verdicts[f"label_{i}"] = label_times[i, at]
    return pa.RecordBatch.from_pydict({n: pa.array(c) for n, c in verdicts.items()}), counts


def group_keys(low: NDArray[np.uint64], high: NDArray[np.uint64]) -> Ints:
    """Numbers equal keys alike, from 0."""
    order = np.lexsort((high, low))
    new = np.ones(len(order), np.bool_)
    new[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return group


def _join(
    rows: Ints, group: Ints, times: Ints, impression_of: Ints, event: Events, counts: Counter[str]
) -> tuple[Ints, Ints]:
    """Returns the impressions that the events of one log label, and the earliest event's time."""
    order = np.lexsort((times[rows], group[rows]))
    rows = rows[order]
    repeated = np.zeros(len(rows), np.bool_)
    same_key = group[rows[1:]] == group[rows[:-1]]
    repeated[1:] = same_key & (times[rows[1:]] == times[rows[:-1]])
    distinct = rows[~repeated]
    target = impression_of[group[distinct]]
    orphan = target < 0
    delay = times[distinct] - times[np.maximum(target, 0)]
    inside = ~orphan & (delay >= 0) & (delay <= round(event.window_s * 1e6))
    hits, targets = distinct[inside], target[inside]
    first = np.ones(len(hits), np.bool_)
    first[1:] = targets[1:] != targets[:-1]
    prefix = f"events.{event.label}"
    counts[f"{prefix}.orphan"] += int(orphan.sum())
    counts[f"{prefix}.outside_window"] += int((~orphan & ~inside).sum())
    counts[f"{prefix}.duplicates"] += int(repeated.sum()) + int((~first).sum())
    counts[f"{prefix}.joined"] += int(first.sum())
    return targets[first], times[hits[first]]


class ResolveKeys(beam.DoFn):
    """``(partition, spilled key batches)`` -> a verdict RecordBatch; also ``counts``."""

    def __init__(self, events: tuple[Events, ...]) -> None:
        self.events = events

    def process(self, element: tuple[int, Iterable[Spilled]]) -> Iterator[Any]:
        """Resolves one partition."""
        verdicts, counts = resolve((keys.load() for keys in element[1]), self.events)
        if verdicts.num_rows:
            yield verdicts
        yield TaggedOutput("counts", counts)
