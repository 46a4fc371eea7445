"""Labels in the order in which they arrive, learned in full batches once they are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.api import Sampler
from ctr.data.examples import Block, Examples
from ctr.data.packing import whole_query_places
from ctr.learner import Learner


@dataclass(frozen=True)
class Held:
    """The encoded stream in memory.

    Attributes:
        block: All rows as one block; its ``frame`` is that of the first part and not used.
        factors: float32[n], what a row's weight is multiplied by in learning; 0 leaves it out.
    """

    block: Block
    factors: NDArray[np.float32]

    @classmethod
    def of(cls, blocks: Sequence[Block], sampler: Sampler) -> Held:
        """Joins the blocks of a stream; a sampler decides what of it is learned."""

        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(b, name) for b in blocks])

        queries = [b.query for b in blocks if b.query is not None]
        query = np.concatenate(queries) if queries else None
        side = {name: np.concatenate([b.side[name] for b in blocks]) for name in blocks[0].side}
        factors = np.concatenate([sampler.factors(b) for b in blocks])
        block = Block(
            joined("ids"), joined("numeric"), joined("labels"), joined("weights"),
            joined("time_us"), query, side, blocks[0].frame,
        )  # fmt: skip
        return cls(block, factors)

    @property
    def n_rows(self) -> int:
        """Examples held."""
        return len(self.block.time_us)

    @property
    def time_us(self) -> NDArray[np.int64]:
        """int64[n], event times."""
        return self.block.time_us

    @property
    def ids(self) -> NDArray[np.int32]:
        """int32[n, S]."""
        return self.block.ids

    @property
    def numeric(self) -> NDArray[np.float32]:
        """float32[n, M]."""
        return self.block.numeric

    def examples(
        self, rows: NDArray[np.int64], labels: NDArray[np.float32], places: Any = None
    ) -> Examples:
        """Returns rows of the stream with the labels that are known of them by now."""
        b = self.block
        side = {name: values[rows] for name, values in b.side.items()}
        query = None if b.query is None else b.query[rows]
        taken = Block(
            b.ids[rows], b.numeric[rows], labels, b.weights[rows] * self.factors[rows],
            b.time_us[rows], query, side, b.frame,
        )  # fmt: skip
        return Examples((taken,), 0, len(rows), {}, places)


@dataclass(frozen=True)
class Arrivals:
    """What arrives when, in order of arrival and, at one moment, of the stream.

    Attributes:
        time_us: int64[e], moment of arrival.
        row: int64[e], row of the stream; it comes once for each moment at which labels arrive.
        known: bool[e, T], the labels that arrive with it.
    """

    time_us: NDArray[np.int64]
    row: NDArray[np.int64]
    known: NDArray[np.bool_]


def arrivals(
    held: Held,
    labels: Sequence[str],
    delay_us: Mapping[str, int],
    label_time_us: Mapping[str, NDArray[np.int64]],
) -> Arrivals:
    """Works out when each label of each row arrives.

    Args:
        held: The stream.
        labels: Learned labels, T of them.
        delay_us: Microseconds from event to the label's arrival; 0 for labels not named.
        label_time_us: Where positives arrive with their event: int64[n] time of that event by
            label, -1 where there is none. A label never arrives before its own row.
    """
    time_us, n = held.time_us, held.n_rows
    moments = np.empty((n, len(labels)), np.int64)
    for task, label in enumerate(labels):
        moments[:, task] = time_us + delay_us.get(label, 0)
        event = label_time_us.get(label)
        if event is not None:
            early = (held.block.labels[:, task] == 1) & (event >= 0)
            moments[early, task] = np.maximum(event, time_us)[early]
    known = held.block.labels >= 0
    parts = []
    for task in range(len(labels)):
        # Labels that arrive at the same moment are learned together, with the first of them.
        same = moments == moments[:, task : task + 1]
        rows = np.flatnonzero(~same[:, :task].any(axis=1))
        parts.append((moments[rows, task], rows, (same & known)[rows]))
    moment, row, arrived = (np.concatenate(x) for x in zip(*parts, strict=True))
    # Nothing is learned from a row without a known label but its numeric statistics, and nothing
    # at all from one without weight.
    learned = held.block.weights[row] * held.factors[row] > 0
    moment, row, arrived = moment[learned], row[learned], arrived[learned]
    order = np.lexsort((row, moment))
    return Arrivals(moment[order], row[order], arrived[order])


def next_rows(
    learner: Learner, held: Held, waiting: NDArray[np.int64]
) -> tuple[int, NDArray[np.int64] | None]:
    """Returns how many of the waiting rows the next launch takes, and their places in it.

    Args:
        learner: Its launches hold (K, B) rows, cut between queries if it asks for that.
        held: The stream.
        waiting: int64[n], rows in the order in which they are learned.
    """
    k, b = learner.chunk_shape
    if not learner.whole_queries:
        return min(len(waiting), k * b), None
    query = held.block.query
    assert query is not None  # the reader has refused a stream without queries
    # One row more than a chunk holds shows whether the last query in it is complete.
    return whole_query_places(query[waiting[: k * b + 1]], (k, b), Counter())


class ArrivalQueue:
    """Feeds a learner with what has arrived.

    Only full batches are learned: what is left over waits for the next call, which delays
    learning by less than a batch and never lets a label be learned before it arrived. A recipe
    that asks for whole queries gets padded batches instead.
    """

    def __init__(self, learner: Learner, held: Held, order: Arrivals) -> None:
        self._learner, self._held, self._order = learner, held, order
        self._done = 0

    def learn_until(self, moment_us: int) -> None:
        """Learns what arrived strictly before a moment, in order of arrival."""
        shape = self._learner.chunk_shape
        ready = int(np.searchsorted(self._order.time_us, moment_us, side="left"))
        while self._done < ready:
            examples = self._next(ready, shape)
            if examples is None:
                return
            self._learner.learn(examples.chunk(shape))

    def _next(self, ready: int, shape: tuple[int, int]) -> Examples | None:
        waiting = self._order.row[self._done : ready]
        taken, places = next_rows(self._learner, self._held, waiting)
        if not self._learner.whole_queries:
            taken = taken // shape[1] * shape[1]
        if not taken:
            return None
        rows = waiting[:taken]
        known = self._order.known[self._done : self._done + taken]
        self._done += taken
        labels = np.where(known, self._held.block.labels[rows], np.float32(-1))
        return self._held.examples(rows, labels, places)
