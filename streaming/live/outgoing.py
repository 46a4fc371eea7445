"""Rows that leave the live join, in the layout of shards."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streaming.live.layout import CORRECTION, NEVER, payload
from streaming.live.rules import JoinRules
from streaming.shard_layout import TIME as STAMP


def example_rows(
    held: pa.RecordBatch,
    rows: NDArray[np.int64],
    events: list[NDArray[np.int64]],
    rules: JoinRules,
) -> pa.RecordBatch:
    """Returns examples with the labels that are known when they leave.

    Args:
        held: Impressions.
        rows: int64[n], those that leave.
        events: For each label int64[n], its earliest event within the wait, or ``NEVER``.
        rules: Of the join.
    """
    columns = _payload(held, rows)
    for i, label in enumerate(rules.labels):
        none = events[i] == NEVER
        columns[label] = pa.array((~none).astype(np.int8))
        columns[f"{label}_time"] = pa.array(events[i], mask=none).cast(STAMP)
    columns[CORRECTION] = pa.array(np.zeros(len(rows), np.int8))
    return pa.RecordBatch.from_pydict(columns)


def correction_rows(
    held: pa.RecordBatch,
    rows: NDArray[np.int64],
    events: NDArray[np.int64],
    i: int,
    rules: JoinRules,
) -> pa.RecordBatch:
    """Returns rows that say that label ``i`` of examples that have left is 1 after all.

    Every other label is null: it was learned with the example. The event time is moved to where
    the stream stands when the label is known, so that event time ascends in what follows.
    """
    columns = _payload(held, rows)
    stamps = columns["event_time"].cast(pa.int64()).to_numpy()
    stamps = np.maximum(stamps, events - rules.wait_us)
    columns["event_time"] = pa.array(stamps).cast(STAMP)
    for label in (*rules.labels, *rules.other_labels):
        columns[label] = pa.nulls(len(rows), pa.int8())
    for label in rules.labels:
        columns[f"{label}_time"] = pa.nulls(len(rows), STAMP)
    columns[rules.labels[i]] = pa.array(np.ones(len(rows), np.int8))
    columns[f"{rules.labels[i]}_time"] = pa.array(events).cast(STAMP)
    columns[CORRECTION] = pa.array(np.ones(len(rows), np.int8))
    return pa.RecordBatch.from_pydict(columns)


def _payload(held: pa.RecordBatch, rows: NDArray[np.int64]) -> dict[str, pa.Array]:
    own = payload(held)
    taken = held.select(own).take(pa.array(rows))
    return dict(zip(own, taken.columns, strict=True))
