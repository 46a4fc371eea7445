"""The columns of impressions and events on their way through the live join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.hashing import fingerprint64

#: Start of the names of the join's own columns; no column of a log is called like this.
OWN = "_live."
#: Both halves of the hash of an impression's id, and the event time in microseconds.
LOW, HIGH, TIME = f"{OWN}low", f"{OWN}high", f"{OWN}time"
#: Of events: the index of the label.
KIND = f"{OWN}kind"
#: Of events that wait: an impression of this key was there, but in another stretch of time.
SEEN = f"{OWN}seen"
#: Of impressions that are held: the example has left.
LEFT = f"{OWN}left"
#: The time of an event that has not happened.
NEVER = int(np.iinfo(np.int64).max)
#: 1 in rows that correct a label of an example that left before.
CORRECTION = "correction"
#: Appended to a key for the second 64 bits of its hash.
_SECOND = "\x1f2"


def event_of(i: int) -> str:
    """Column of held impressions: earliest event of label ``i``."""
    return f"{OWN}event.{i}"


def told(i: int) -> str:
    """Column of held impressions: label ``i`` was told, by the example or a correction."""
    return f"{OWN}told.{i}"


def _keyed(keys: pa.Array, times: NDArray[np.int64]) -> dict[str, pa.Array]:
    second = pc.binary_join_element_wise(keys, pa.scalar(_SECOND), "")
    return {
        LOW: pa.array(fingerprint64(keys)),
        HIGH: pa.array(fingerprint64(second)),
        TIME: pa.array(times, pa.int64()),
    }


def shown_batch(rows: pa.RecordBatch, keys: pa.Array, times: NDArray[np.int64]) -> pa.RecordBatch:
    """Returns impressions for the join.

    Args:
        rows: n rows in shard layout, labels of events 0.
        keys: string[n], ids that events refer to.
        times: int64[n], microseconds.
    """
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    return pa.RecordBatch.from_pydict({**_keyed(keys, times), **columns})


def event_batch(keys: pa.Array, times: NDArray[np.int64], kind: int) -> pa.RecordBatch:
    """Returns events of label ``kind`` for the join; ``keys`` are ids of impressions."""
    kinds = pa.array(np.full(len(keys), kind, np.int16))
    return pa.RecordBatch.from_pydict({**_keyed(keys, times), KIND: kinds})


def is_events(batch: pa.RecordBatch) -> bool:
    """Tells events from impressions."""
    return batch.schema.get_field_index(KIND) >= 0


def by_partition(batch: pa.RecordBatch, n_partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields ``(partition, rows)``; a partition sees everything about its keys."""
    if n_partitions == 1:
        yield 0, batch
        return
    partition = (batch.column(LOW).to_numpy() % np.uint64(n_partitions)).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    edges = np.searchsorted(partition[order], np.arange(n_partitions + 1))
    ordered = batch.take(pa.array(order))
    for p in range(n_partitions):
        if edges[p + 1] > edges[p]:
            yield p, ordered.slice(edges[p], edges[p + 1] - edges[p])


def payload(batch: pa.RecordBatch) -> list[str]:
    """Returns the columns that are not the join's own."""
    return [name for name in batch.schema.names if not name.startswith(OWN)]


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    """Returns one batch with all rows, None for no rows."""
    filled = [batch for batch in batches if batch.num_rows]
    if len(filled) < 2:
        return filled[0] if filled else None
    return pa.concat_batches(filled)
