"""The live join itself: what a clock that moves forward does to impressions and events in hand.

A pure function of columns. The Beam DoFn (``streaming.live.join``) and the single-process driver
(``streaming.live.driver``) only bring it state and a clock. Nothing but event times decides, so
the order, repetition and cutting of what arrives change nothing as long as nothing is more than
the lateness behind the clock:

- an example leaves when the clock has passed its impression by the wait, never earlier;
- an event that comes between the wait and the end of its window leaves as a correction, when the
  clock has passed the event;
- keys are held until no event and no repeat of them would be accepted any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streaming.dedup_join import group_keys
from streaming.live.layout import (
    HIGH,
    KIND,
    LEFT,
    LOW,
    NEVER,
    SEEN,
    TIME,
    event_of,
    joined,
    payload,
    told,
)
from streaming.live.outgoing import correction_rows, example_rows
from streaming.live.rules import JoinRules

#: A clock that has not begun; far in the past, with room for the lateness.
BEGINNING = int(np.iinfo(np.int64).min) // 2

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class JoinState:
    """What a partition remembers.

    Attributes:
        held: Impressions, with the earliest event and what was told of each label.
        loose: Events whose impression is not there.
        clock_us: Event time up to which everything that was due has left.
    """

    held: pa.RecordBatch | None = None
    loose: pa.RecordBatch | None = None
    clock_us: int = BEGINNING


@dataclass(frozen=True)
class Step:
    """What a step of the clock gives.

    Attributes:
        state: The new state.
        examples: Rows in shard layout, ``correction`` 0.
        corrections: Rows in shard layout, ``correction`` 1: one label is 1, the others null, and
            the event time is that at which the example would leave if it waited for the label.
        late: Impressions and events that came too late to be treated.
        counts: What happened to events and impressions.
        due_us: When something is due next, ``NEVER`` if the state is empty.
    """

    state: JoinState
    examples: pa.RecordBatch | None
    corrections: list[pa.RecordBatch]
    late: list[pa.RecordBatch]
    counts: Counter[str] = field(default_factory=Counter)
    due_us: int = NEVER


def advance(
    state: JoinState,
    shown: Sequence[pa.RecordBatch],
    events: Sequence[pa.RecordBatch],
    until_us: int,
    rules: JoinRules,
) -> Step:
    """Takes in what has arrived and moves the clock.

    Args:
        state: Of the partition.
        shown: Impressions that have arrived since the last step.
        events: Events that have.
        until_us: New clock, microseconds; one that is behind the old one changes nothing.
        rules: Of the join.
    """
    counts: Counter[str] = Counter()
    clock = max(state.clock_us, until_us)
    late: list[pa.RecordBatch] = []
    old = state.held.num_rows if state.held is not None else 0
    new = _accept(joined(shown), state.clock_us, rules, late)
    held = joined([b for b in (state.held, _held(new, rules)) if b is not None])
    arrived = _accept(joined(events), state.clock_us, rules, late)
    loose = joined([b for b in (state.loose, _loose(arrived)) if b is not None])
    _count_arrivals(shown, events, late, rules, counts)
    if held is not None:
        held, loose = _match(held, old, loose, rules, counts)
    if loose is not None:
        loose = _expire(loose, clock, rules, counts)
    state = JoinState(held, loose, clock)
    if held is None:
        return Step(state, None, [], late, counts, _next_due(state, rules))
    return _leave(state, late, rules, counts)


def _accept(
    batch: pa.RecordBatch | None, clock: int, rules: JoinRules, late: list[pa.RecordBatch]
) -> pa.RecordBatch | None:
    if batch is None:
        return None
    good = batch.column(TIME).to_numpy() + rules.lateness_us >= clock
    if good.all():
        return batch
    late.append(batch.filter(pa.array(~good)))
    return batch.filter(pa.array(good))


def _held(new: pa.RecordBatch | None, rules: JoinRules) -> pa.RecordBatch | None:
    """Adds the columns of an impression about which nothing is known yet."""
    if new is None:
        return None
    n = new.num_rows
    columns = {LEFT: pa.array(np.zeros(n, np.bool_))}
    for i in range(len(rules.labels)):
        columns[event_of(i)] = pa.array(np.full(n, NEVER, np.int64))
        columns[told(i)] = pa.array(np.zeros(n, np.bool_))
    names = [*columns, *new.schema.names]
    return pa.RecordBatch.from_arrays([*columns.values(), *new.columns], names)


def _loose(new: pa.RecordBatch | None) -> pa.RecordBatch | None:
    return new and new.append_column(SEEN, pa.array(np.zeros(new.num_rows, np.bool_)))


def _count_arrivals(
    shown: Sequence[pa.RecordBatch],
    events: Sequence[pa.RecordBatch],
    late: list[pa.RecordBatch],
    rules: JoinRules,
    counts: Counter[str],
) -> None:
    counts["impressions"] += sum(batch.num_rows for batch in shown)
    for what, batches in (("rows", events), ("late", late)):
        for batch in batches:
            if KIND not in batch.schema.names:
                counts["impressions.late"] += batch.num_rows
                continue
            numbers = np.bincount(batch.column(KIND).to_numpy(), minlength=len(rules.labels))
            for label, n in zip(rules.labels, numbers.tolist(), strict=True):
                counts[f"events.{label}.{what}"] += n


def _match(
    held: pa.RecordBatch,
    old: int,
    loose: pa.RecordBatch | None,
    rules: JoinRules,
    counts: Counter[str],
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Keeps one impression per key and gives it its earliest events."""
    n = held.num_rows
    parts = [held] if loose is None else [held, loose]
    low, high, times = (
        np.concatenate([part.column(name).to_numpy() for part in parts])
        for name in (LOW, HIGH, TIME)
    )
    group = group_keys(low, high)
    kept = _one_per_key(held, group[:n], times[:n])
    impression_of = np.full(int(group.max()) + 1, -1, np.int64)
    impression_of[group[kept]] = kept
    first = [held.column(event_of(i)).to_numpy().copy() for i in range(len(rules.labels))]
    counts["impressions.duplicates"] += n - len(kept)
    if len(kept) < n:
        _hand_over(first, old, impression_of[group[:n]], times, rules, counts)
    if loose is not None:
        target = impression_of[group[n:]]
        loose = _label(loose, target, times, first, rules, counts)
    for i, values in enumerate(first):
        place = held.schema.get_field_index(event_of(i))
        held = held.set_column(place, event_of(i), pa.array(values))
    return (held.take(pa.array(np.sort(kept))) if len(kept) < n else held), loose


def _one_per_key(held: pa.RecordBatch, group: Ints, times: Ints) -> Ints:
    """Returns one row per key: the example that has left, else the earliest impression."""
    left = held.column(LEFT).to_numpy(zero_copy_only=False)
    order = np.lexsort((times, ~left, group))
    first = np.ones(len(order), np.bool_)
    first[1:] = group[order][1:] != group[order][:-1]
    kept = order[first]
    # Equal times, as a repeated delivery has: the content decides, whatever came first.
    rivals = ~first
    rivals[1:] &= times[order][1:] == times[order][:-1]
    rivals &= ~left[order]
    for row in order[rivals]:
        place = np.searchsorted(group[kept], group[row])
        best = kept[place]
        if times[row] == times[best] and not left[best]:
            kept[place] = min(best, row, key=lambda r: repr(_content(held, int(r))))
    return kept


def _content(held: pa.RecordBatch, row: int) -> list[object]:
    return [held.column(name)[row].as_py() for name in payload(held)]


def _hand_over(
    first: list[Ints],
    old: int,
    winner: Ints,
    times: Ints,
    rules: JoinRules,
    counts: Counter[str],
) -> None:
    """Gives the events of an impression that an earlier one of its key replaces to that one."""
    replaced = np.flatnonzero(winner[:old] != np.arange(old))
    for i, values in enumerate(first):
        rows = replaced[values[replaced] != NEVER]
        inside = values[rows] <= times[winner[rows]] + rules.windows_us[i]
        counts[f"events.{rules.labels[i]}.outside_window"] += int((~inside).sum())
        # Rows of one key were thinned to one before, so that no winner occurs twice.
        values[winner[rows[inside]]] = values[rows[inside]]


def _label(
    loose: pa.RecordBatch,
    target: Ints,
    times: Ints,
    first: list[Ints],
    rules: JoinRules,
    counts: Counter[str],
) -> pa.RecordBatch | None:
    """Takes the events that fall into the window of an impression out of the loose ones."""
    kind = loose.column(KIND).to_numpy()
    event_times = loose.column(TIME).to_numpy()
    found = target >= 0
    delay = event_times - times[np.maximum(target, 0)]
    inside = found & (delay >= 0) & (delay <= np.array(rules.windows_us, np.int64)[kind])
    for i, label in enumerate(rules.labels):
        rows = np.flatnonzero(inside & (kind == i))
        known = int((first[i] != NEVER).sum())
        np.minimum.at(first[i], target[rows], event_times[rows])
        fresh = int((first[i] != NEVER).sum()) - known
        counts[f"events.{label}.duplicates"] += len(rows) - fresh
    seen = loose.column(SEEN).to_numpy(zero_copy_only=False) | found
    loose = loose.set_column(loose.schema.get_field_index(SEEN), SEEN, pa.array(seen))
    return loose.filter(pa.array(~inside)) if inside.any() else loose


def _expire(
    loose: pa.RecordBatch, clock: int, rules: JoinRules, counts: Counter[str]
) -> pa.RecordBatch | None:
    """Gives up events of which no impression would be accepted any more."""
    gone = loose.column(TIME).to_numpy() + rules.lateness_us < clock
    if gone.any():
        kind = loose.column(KIND).to_numpy()
        seen = loose.column(SEEN).to_numpy(zero_copy_only=False)
        for i, label in enumerate(rules.labels):
            mine = gone & (kind == i)
            counts[f"events.{label}.outside_window"] += int((mine & seen).sum())
            counts[f"events.{label}.orphan"] += int((mine & ~seen).sum())
        loose = loose.filter(pa.array(~gone))
    return loose if loose.num_rows else None


def _leave(
    state: JoinState, late: list[pa.RecordBatch], rules: JoinRules, counts: Counter[str]
) -> Step:
    """Lets out what is due and forgets what nothing can touch any more."""
    held, clock = state.held, state.clock_us
    assert held is not None
    times = held.column(TIME).to_numpy()
    left = held.column(LEFT).to_numpy(zero_copy_only=False)
    leaves = ~left & (times + rules.wait_us <= clock)
    left = left | leaves
    first = [held.column(event_of(i)).to_numpy() for i in range(len(rules.labels))]
    told_before = [
        held.column(told(i)).to_numpy(zero_copy_only=False) for i in range(len(rules.labels))
    ]
    by_now = [event <= times + rules.wait_us for event in first]
    examples = None
    if leaves.any():
        rows = np.flatnonzero(leaves)
        known = [np.where(b, e, NEVER)[rows] for e, b in zip(first, by_now, strict=True)]
        examples = example_rows(held, rows, known, rules)
        counts["examples"] += len(rows)
    corrections = []
    for i, label in enumerate(rules.labels):
        with_example = leaves & by_now[i]
        after = left & ~told_before[i] & ~with_example & (first[i] <= clock)
        counts[f"events.{label}.joined"] += int(with_example.sum())
        counts[f"events.{label}.corrections"] += int(after.sum())
        if after.any():
            rows = np.flatnonzero(after)
            corrections.append(correction_rows(held, rows, first[i][rows], i, rules))
        place = held.schema.get_field_index(told(i))
        now_told = pa.array(told_before[i] | with_example | after)
        held = held.set_column(place, told(i), now_told)
    held = held.set_column(held.schema.get_field_index(LEFT), LEFT, pa.array(left))
    gone = left & (times + rules.horizon_us + rules.lateness_us < clock)
    if gone.any():
        held = held.filter(pa.array(~gone))
    state = replace(state, held=held if held.num_rows else None)
    return Step(state, examples, corrections, late, counts, _next_due(state, rules))


def _next_due(state: JoinState, rules: JoinRules) -> int:
    due = NEVER
    if state.loose is not None:
        due = int(state.loose.column(TIME).to_numpy().min()) + rules.lateness_us + 1
    held = state.held
    if held is None:
        return due
    times = held.column(TIME).to_numpy()
    left = held.column(LEFT).to_numpy(zero_copy_only=False)
    oldest = int(times.min())
    due = min(due, oldest + rules.horizon_us + rules.lateness_us + 1)
    if not left.all():
        due = min(due, int(times[~left].min()) + rules.wait_us)
    for i in range(len(rules.labels)):
        event = held.column(event_of(i)).to_numpy()
        open_ = left & ~held.column(told(i)).to_numpy(zero_copy_only=False) & (event != NEVER)
        if open_.any():
            due = min(due, int(event[open_].min()))
    return due
