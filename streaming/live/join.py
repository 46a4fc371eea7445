"""The live join as a Beam step: state and event-time timers around ``streaming.live.attribution``.

The same DoFn runs in a bounded replay, where the timers fire after all input, in the streaming
test runner and on a streaming engine. A timer tells how far the watermark is, at the least; that
is the clock of a partition. On a jump of the watermark timers fire one tick after another, and
what is not due at a tick stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import VarIntCoder
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from streaming.arrow_coder import RecordBatchCoder, register
from streaming.live.attribution import BEGINNING, JoinState, Step, advance
from streaming.live.layout import NEVER, TIME, by_partition, is_events, joined
from streaming.live.rules import JoinRules

#: Names of the outputs beside the examples.
CORRECTIONS, LATE, COUNTS = "corrections", "late", "counts"


class SplitByPartition(beam.DoFn):
    """Batches of ``shown_batch`` or ``event_batch`` -> ``(partition, batch)``."""

    def __init__(self, n_partitions: int) -> None:
        self.n_partitions = n_partitions

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Splits one batch."""
        yield from by_partition(batch, self.n_partitions)


class LiveJoin(beam.DoFn):
    """``(partition, batch)`` -> examples; also ``corrections``, ``late`` and ``counts``.

    Elements are gathered as they are; all work is done when the timer fires.
    """

    ARRIVED = BagStateSpec("arrived", RecordBatchCoder())
    HELD = BagStateSpec("held", RecordBatchCoder())
    LOOSE = BagStateSpec("loose", RecordBatchCoder())
    CLOCK = ReadModifyWriteStateSpec("clock", VarIntCoder())
    ARMED = ReadModifyWriteStateSpec("armed", VarIntCoder())
    DUE = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, rules: JoinRules) -> None:
        self.rules = rules

    def process(
        self,
        element: tuple[int, pa.RecordBatch],
        arrived: Any = beam.DoFn.StateParam(ARRIVED),
        armed: Any = beam.DoFn.StateParam(ARMED),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> None:
        """Keeps a batch and sees to it that the timer fires in time."""
        batch = element[1]
        if not batch.num_rows:
            return
        arrived.add(batch)
        # An event may correct an example that has left: then it leaves at its own time.
        wait = 0 if is_events(batch) else self.rules.wait_us
        at = self.rules.tick_after(int(batch.column(TIME).to_numpy().min()) + wait)
        self._arm(at, armed, due)

    @on_timer(DUE)
    def fire(
        self,
        fired: Any = beam.DoFn.TimestampParam,
        arrived: Any = beam.DoFn.StateParam(ARRIVED),
        held: Any = beam.DoFn.StateParam(HELD),
        loose: Any = beam.DoFn.StateParam(LOOSE),
        clock: Any = beam.DoFn.StateParam(CLOCK),
        armed: Any = beam.DoFn.StateParam(ARMED),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Any]:
        """Moves the clock of the partition to the timer's time."""
        known = clock.read()
        state = JoinState(
            joined([*held.read()]), joined([*loose.read()]), BEGINNING if known is None else known
        )
        batches = [*arrived.read()]
        shown = [batch for batch in batches if not is_events(batch)]
        events = [batch for batch in batches if is_events(batch)]
        step = advance(state, shown, events, fired.micros, self.rules)
        arrived.clear()
        for bag, rows in ((held, step.state.held), (loose, step.state.loose)):
            bag.clear()
            if rows is not None:
                bag.add(rows)
        clock.write(step.state.clock_us)
        armed.clear()
        if step.due_us != NEVER:
            self._arm(self.rules.tick_after(step.due_us), armed, due)
        yield from _outputs(step)

    def _arm(self, at_us: int, armed: Any, due: Any) -> None:
        before = armed.read()
        if before is None or at_us < before:
            armed.write(at_us)
            due.set(min(Timestamp(micros=at_us), MAX_TIMESTAMP))


def _outputs(step: Step) -> Iterator[Any]:
    if step.examples is not None:
        yield step.examples
    for batch in step.corrections:
        yield TaggedOutput(CORRECTIONS, batch)
    for batch in step.late:
        yield TaggedOutput(LATE, batch)
    if step.counts:
        yield TaggedOutput(COUNTS, Counter(step.counts))


class JoinLive(beam.PTransform):
    """Impressions and events, flattened into one collection -> the outputs of :class:`LiveJoin`.

    Args:
        rules: Of the join.
        n_partitions: Partitions of the key space, the limit of parallel work.
    """

    def __init__(self, rules: JoinRules, n_partitions: int = 16) -> None:
        super().__init__()
        self.rules = rules
        self.n_partitions = n_partitions

    def expand(self, batches: Any) -> Any:
        """Adds the steps; the outputs are ``examples``, ``corrections``, ``late``, ``counts``."""
        register()
        return (
            batches
            | "Split"
            >> beam.ParDo(SplitByPartition(self.n_partitions)).with_output_types(
                tuple[int, pa.RecordBatch]
            )
            | "Join"
            >> beam.ParDo(LiveJoin(self.rules)).with_outputs(
                CORRECTIONS, LATE, COUNTS, main="examples"
            )
        )
