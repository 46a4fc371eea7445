"""Training without an end: learns each shard of a live stream when it is committed."""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.checkpoint import Saved
from ctr.data import manifest
from ctr.data.examples import Examples
from ctr.data.prefetch import prefetch
from ctr.errors import ConfigError, StreamError
from ctr.health import HealthConfig, HealthMonitor
from ctr.training.publish import Publisher
from ctr.training.run import RunConfig
from ctr.training.status import write_status
from ctr.training.trainer import Status, Trainer

log = logging.getLogger(__name__)

#: Start of the names of the monitors' state in a checkpoint.
_HEALTH = "health:"
#: A century: the join has told late rows apart already, the trainer takes what was committed.
_ANY_LATENESS_S = 3.15e9


@dataclass(frozen=True)
class Following:
    """How a live stream is followed; nothing here decides a number.

    Attributes:
        checkpoint_minutes: Event time between checkpoints.
        idle_s: Ends after this long without a new shard; 0 waits until the stream is closed.
        poll_s: Seconds between looks at the manifest.
        health: How closely the stream is watched.
    """

    checkpoint_minutes: float = 10.0
    idle_s: float = 0.0
    poll_s: float = 0.5
    health: HealthConfig = field(default_factory=HealthConfig)

    def __post_init__(self) -> None:
        if not self.checkpoint_minutes > 0.0:
            raise ConfigError(
                f"--checkpoint-minutes must be above 0, received {self.checkpoint_minutes}."
            )


class FollowTrainer(Trainer):
    """A trainer that waits for shards instead of ending.

    Every chunk ends with its shard at the latest, so what is computed depends on the shards
    alone, not on when they came or how often the trainer was interrupted. It ends when the stream
    is closed and learned, on SIGTERM or SIGINT (with a checkpoint), or after ``idle_s``.

    Args:
        data_dir: Folder that ``octr stream`` writes.
        run_dir: Run folder, new or to be resumed.
        config: What decides the numbers; ``by_shard`` is true.
        following: How to follow.
        keep: Checkpoints kept.
        save_predictions: Also write ``predictions.parquet`` at the end.
        publisher: Exports models; None exports none. It pauses while an alarm is on.
        forget_alarms: Begin a new history of the stream's health.

    Raises:
        CtrError: as of :class:`Trainer`; waiting for the first shard ends after ``idle_s``.
    """

    def __init__(
        self,
        data_dir: Path,
        run_dir: Path,
        config: RunConfig,
        following: Following | None = None,
        keep: int = 3,
        save_predictions: bool = False,
        publisher: Publisher | None = None,
        forget_alarms: bool = False,
    ) -> None:
        self._following = following or Following()
        self._publisher = publisher
        self._stopped = False
        self._forget = forget_alarms
        self._seen: tuple[int, int, int] | None = None
        self._began, self._began_at = time.time(), 0
        self._table_use: dict[str, dict[str, int]] = {}
        self._restore_handlers = self._catch_signals()
        wait_for_data(data_dir, self._following)
        super().__init__(
            data_dir, run_dir, config, keep=keep, save_predictions=save_predictions,
            allowed_lateness_s=_ANY_LATENESS_S,
        )  # fmt: skip
        self._began_at = self.position
        self._table_use = self.learner.table_use()

    @functools.cached_property
    def health(self) -> HealthMonitor:
        """Watches the stream; a checkpoint holds its state."""
        return HealthMonitor(self.learner.encoder, self._following.health)

    @property
    def total(self) -> int | None:
        """None: more may come."""
        return None

    @property
    def finished(self) -> bool:
        """True if the stream is closed and all of it is learned."""
        return manifest.is_closed(self.reader.data_dir) and super().finished

    def _train(self, progress: Callable[[Status], None] | None) -> None:
        try:
            super()._train(progress)
            self._tell(closing=True)
        finally:
            self._restore_handlers()
            if self._publisher is not None:
                self._publisher.finish()

    def _is_due(self, passed_s: float) -> bool:
        # Checkpoints are made between shards.
        return False

    def _chunks(self, shape: tuple[int, int]) -> Iterator[Examples]:
        waited_since = time.monotonic()
        while not self._stopped:
            closed = manifest.is_closed(self.reader.data_dir)
            self._refresh()
            stop = self._next_border()
            if stop is None:
                idle = self._following.idle_s
                if closed or (idle and time.monotonic() - waited_since > idle):
                    return
                self._tell()
                time.sleep(self._following.poll_s)
                continue
            before_us = self.time_us
            for examples in prefetch(self.reader.chunks(shape, self.position, stop)):
                yield examples
                if self._stopped:
                    return
            # Rows at the end of a shard that a sampler left out.
            self.counts["sampled_out"] += stop - self.position
            self.position = stop
            self._after_shard(before_us)
            waited_since = time.monotonic()

    def _refresh(self) -> None:
        """Takes over new shards; a look at an unchanged manifest costs one system call."""
        stat = (self.reader.data_dir / manifest.MANIFEST).stat()
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if seen != self._seen:
            self.reader.extend(manifest.load(self.reader.data_dir)[1])
            self._seen = seen

    def _next_border(self) -> int | None:
        """Returns the end of the shard that holds the next example, None if there is none."""
        after = 0
        for shard in self.reader.shards:
            after += shard.n_rows
            if after > self.position:
                return after
        return None

    def _after_shard(self, before_us: int) -> None:
        grid_us = round(self._following.checkpoint_minutes * 60e6)
        if before_us // grid_us != self.time_us // grid_us and before_us:
            self._save()
            self._table_use = self.learner.table_use()
            if self._publisher is not None:
                self._publisher.offer(self.time_us, self.health.healthy)
                self._let_publish()
        self._tell()

    def _watch(self, examples: Examples, probs: NDArray[np.float32]) -> None:
        for block in examples.blocks:
            if "correction" in block.frame.schema.names:
                late = pc.sum(block.frame.column("correction")).as_py() or 0
                self.counts["late_labels"] += late
        before = self.health.alarms
        self.health.observe(examples.blocks, probs)
        for alarm in self.health.alarms:
            if not before:
                log.warning("ALARM at example %s: %s", f"{examples.stop:,}", alarm)
        self._let_publish()

    def _let_publish(self) -> None:
        if self._publisher is not None and not self.health.n_unjudged:
            self._publisher.judged(self.health.healthy)

    def _more_state(self) -> dict[str, NDArray[Any]]:
        return {f"{_HEALTH}{name}": part for name, part in self.health.state_dict().items()}

    def _load(self, saved: Saved) -> None:
        super()._load(saved)
        state = {
            name.removeprefix(_HEALTH): part
            for name, part in saved.arrays.items()
            if name.startswith(_HEALTH)
        }
        if state and not self._forget:
            self.health.load_state(state)

    def _tell(self, closing: bool = False) -> None:
        """Writes ``status.json``."""
        shards = self.reader.shards
        seconds = max(time.time() - self._began, 1e-9)
        primary = self.metrics[self.learner.labels[0]]
        # The last full one; the one that is open may hold a handful of rows.
        recent = primary.windows(self.time_us - 3 * primary.window_us)[-2:]
        state: dict[str, Any] = {
            "state": "ended" if closing else "following",
            "process": os.getpid(),
            "examples": self.position,
            "lag_examples": self.reader.n_rows - self.position,
            "event_time_us": self.time_us,
            "data_event_time_us": max((s.max_time_us for s in shards), default=0),
            "examples_per_second": (self.position - self._began_at) / seconds,
            "checkpoint_examples": self._saved_at,
            "alarms": self.health.alarms,
            "health_windows": self.health.windows,
            "window": recent[0] if recent else None,
            "export": self._publisher.state() if self._publisher is not None else None,
            "table_use": self.learner.table_use() if closing else self._table_use,
        }
        write_status(self.run.path, state)

    def _catch_signals(self) -> Callable[[], None]:
        """Ends after the running launch, with a checkpoint, when asked to."""
        before: dict[int, Any] = {}

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopped = True

        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                before[number] = signal.signal(number, stop)
            except ValueError:  # not in the main thread: whoever owns it decides
                break

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore


def wait_for_data(data_dir: Path, following: Following) -> None:
    """Returns when the first examples are committed.

    Raises:
        StreamError: the stream ended without any, or ``idle_s`` passed.
    """
    began = time.monotonic()
    while True:
        closed = manifest.is_closed(data_dir)
        if (data_dir / manifest.MANIFEST).is_file():
            if any(shard.n_rows for shard in manifest.load(data_dir)[1]):
                return
        waited = time.monotonic() - began
        if closed or (following.idle_s and waited > following.idle_s):
            raise StreamError(
                f"{data_dir} holds no examples after {waited:.0f} s. Start `octr stream` with "
                "this --output, or raise --idle-s."
            )
        time.sleep(following.poll_s)
