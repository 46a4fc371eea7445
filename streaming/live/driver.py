"""The live join in one process: drain the source, move the clock, commit, again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from ctr.errors import ConfigError
from ctr.schema import Schema
from ctr.training.lock import RunLock
from streaming.ingest import DEAD_FOLDER
from streaming.live.attribution import advance
from streaming.live.commit import FOLDER, CommitLog, Progress
from streaming.live.intake import Intake, wall_clock_us
from streaming.live.layout import CORRECTION, NEVER
from streaming.live.rules import JoinRules
from streaming.live.source import EventSource, Offsets
from streaming.live.windows import cut_windows, write_windows
from streaming.stage import Reading

log = logging.getLogger(__name__)

#: A clock beyond every event.
_END = NEVER // 2


@dataclass(frozen=True)
class DriverOptions:
    """How the driver works.

    Attributes:
        disorder_s: How far event time may fall back within a channel.
        channel_idle_s: A channel without rows for so long no longer holds the clock back.
        until_idle_s: Ends the stream after so long without any row; 0 never does.
        ahead_s: How far event time may be ahead of the wall clock.
        drain_bytes: Aimed size of a drain.
        commit_rows: Rows after which there is a commit even if no window is complete.
        shard_rows: Largest shard.
    """

    disorder_s: float = 60.0
    channel_idle_s: float = 30.0
    until_idle_s: float = 0.0
    ahead_s: float = 3600.0
    drain_bytes: int = 8 << 20
    commit_rows: int = 500_000
    shard_rows: int = 131_072

    def __post_init__(self) -> None:
        for name in ("disorder_s", "channel_idle_s", "until_idle_s", "ahead_s"):
            if getattr(self, name) < 0:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} must be at least 0, received {getattr(self, name)}.")


class Driver:
    """Runs a live join into a data folder.

    Every commit holds offsets, state and shards together, so a process that is killed at any
    moment and started again makes the same shards as one that was not.

    Args:
        reading: How raw rows are read.
        events: Where they come from.
        data_dir: The output folder.
        rules: Of the join; a tick of the clock is the time that a shard covers.
        options: See :class:`DriverOptions`.

    Raises:
        CtrError: the folder cannot be used or belongs to something else.
    """

    def __init__(
        self,
        reading: Reading,
        events: EventSource,
        data_dir: Path,
        rules: JoinRules,
        options: DriverOptions | None = None,
    ) -> None:
        self.rules, self.options = rules, options or DriverOptions()
        self._reading, self._events, self._data_dir = reading, events, data_dir
        (data_dir / FOLDER).mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(data_dir / FOLDER, ("joining into", "--output"))
        self._log = CommitLog(data_dir, live_schema(reading.schema), rules)
        self.progress: Progress = self._log.restore()
        self._offsets: Offsets = dict(self.progress.offsets)
        self._intake = self._new_intake()
        self._active: dict[str, float] = {}

    def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Joins until the stream has ended or somebody asks to stop; both end with a commit."""
        last = time.monotonic()
        try:
            while not self.progress.closed:
                if stopped():
                    self._commit(self.progress.state.clock_us)
                    return
                if self.step():
                    last = time.monotonic()
                elif (
                    self.options.until_idle_s
                    and time.monotonic() - last >= self.options.until_idle_s
                ):
                    self.finish()
        finally:
            self._events.close()
            self._lock.release()

    def step(self, timeout_s: float = 0.2) -> bool:
        """Drains once and commits what is complete; returns whether there was anything."""
        drained, self._offsets = self._events.drain(
            self._offsets, self._clocks(), self.options.drain_bytes, timeout_s
        )
        now = time.monotonic()
        for part in drained:
            self._intake.take(part)
            self._active[part.channel] = now
        until = self._watermark(now) // self.rules.tick_us * self.rules.tick_us
        state = self.progress.state
        waits = drained or state.held is not None or state.loose is not None
        due = until > state.clock_us and waits
        if due or self._intake.n_rows >= self.options.commit_rows:
            self._commit(max(until, state.clock_us))
        return bool(drained)

    def finish(self) -> None:
        """Lets out all that is held and closes the stream."""
        self.progress = replace(self.progress, closed=True)
        self._commit(_END)

    def _clocks(self) -> dict[str, int]:
        known, fresh = self.progress.clocks, self._intake.newest_us
        return {
            name: max(known.get(name, -(1 << 62)), fresh.get(name, -(1 << 62)))
            for name in {*known, *fresh}
        }

    def _watermark(self, now: float) -> int:
        """Returns the event time that no channel will fall back behind, as far as is known."""
        clocks = self._clocks()
        clock = self.progress.state.clock_us
        waiting = []
        for name in self._events.channels():
            idle = now - self._active.setdefault(name, now) > self.options.channel_idle_s
            if not idle:
                waiting.append(clocks.get(name, clock))
        if not waiting:
            return clock
        return min(waiting) - round(self.options.disorder_s * 1e6)

    def _commit(self, until_us: int) -> None:
        before, intake = self.progress.state, self._intake
        step = advance(before, intake.shown, intake.events, until_us, self.rules)
        intake.late(step.late, self.rules)
        rows = [batch for batch in (step.examples, *step.corrections) if batch is not None]
        windows = cut_windows(
            rows, before.clock_us, min(until_us, self._last_due(rows)), self.rules
        )
        shards = write_windows(
            windows, self._data_dir, len(self.progress.shards), self.rules, self.options.shard_rows
        )
        number = self.progress.number + 1
        intake.write_dead(self._data_dir / DEAD_FOLDER / f"live-{number:09d}.parquet")
        progress = replace(
            self.progress,
            state=step.state,
            offsets=dict(self._offsets),
            clocks=self._clocks(),
            counts=self.progress.counts + intake.counts + step.counts,
        )
        self.progress = self._log.commit(progress, shards)
        self._events.committed(self.progress.offsets)
        self._intake = self._new_intake()
        if shards:
            log.info(
                "%s shards, %s examples and corrections in all",
                len(self.progress.shards), f"{sum(s.n_rows for s in self.progress.shards):,}",
            )  # fmt: skip

    def _last_due(self, rows: list[pa.RecordBatch]) -> int:
        """Returns the tick by which all of these rows are due."""
        times = [int(b.column("event_time").cast(pa.int64()).to_numpy().max()) for b in rows]
        return self.rules.tick_after(max(times, default=0) + self.rules.wait_us)

    def _new_intake(self) -> Intake:
        return Intake(self._reading, round(self.options.ahead_s * 1e6), wall_clock_us)


def live_schema(schema: Schema) -> Schema:
    """Returns the schema of shards that carry corrections."""
    return replace(schema, columns={**schema.columns, CORRECTION: (CORRECTION,)})
