"""Raw rows on their way into the live join; what cannot be used becomes a dead letter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.errors import CtrError
from streaming.files import replace_file
from streaming.formats.block import BadRow, RawBlock
from streaming.inputs import IMPRESSIONS
from streaming.live.layout import KIND, TIME, event_batch, payload, shown_batch
from streaming.live.rules import JoinRules
from streaming.live.source import Drained, unreadable
from streaming.stage import Reading
from streaming.validate import validate_events, validate_impressions


@dataclass
class Intake:
    """Rows since the last commit.

    Attributes:
        reading: How rows are read.
        ahead_us: How far event time may be ahead of the wall clock.
        now_us: The wall clock, microseconds.
        shown: Impressions for the join.
        events: Events for the join.
        dead: ``(source, row)`` of what cannot be used.
        counts: Rows read and bad.
        newest_us: Newest event time by channel.
        n_rows: Usable rows.
    """

    reading: Reading
    ahead_us: int
    now_us: Callable[[], int]
    shown: list[pa.RecordBatch] = field(default_factory=list)
    events: list[pa.RecordBatch] = field(default_factory=list)
    dead: list[tuple[str, BadRow]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    newest_us: dict[str, int] = field(default_factory=dict)
    n_rows: int = 0

    def take(self, drained: Drained) -> None:
        """Reads, checks and keeps what a source gave; never fails for its content."""
        try:
            blocks = drained.parse()
            kept = [self._block(block, drained) for block in blocks]
        except CtrError as error:
            if drained.alone:
                for part in drained.alone:
                    self.take(part)
                return
            self._bad(drained.name, [unreadable(drained, str(error))])
            self.counts["rows_read"] += 1
            return
        for block, (batch, bad) in zip(blocks, kept, strict=True):
            self.counts["rows_read"] += block.n_read
            self._bad(drained.name, [*block.bad, *bad])
            if batch.num_rows:
                (self.events if KIND in batch.schema.names else self.shown).append(batch)
                newest = int(batch.column(TIME).to_numpy().max())
                known = self.newest_us.get(drained.channel, newest)
                self.newest_us[drained.channel] = max(known, newest)
                self.n_rows += batch.num_rows

    def _block(self, block: RawBlock, drained: Drained) -> tuple[pa.RecordBatch, list[BadRow]]:
        schema, source = self.reading.schema, self.reading.source
        if drained.role == IMPRESSIONS:
            valid = validate_impressions(block, schema, source)
            assert valid.keys is not None  # a source with events has a key to join by
            batch, bad = shown_batch(valid.batch, valid.keys, valid.times), valid.bad
        else:
            event = source.events[drained.role]
            ids, times, bad = validate_events(block, event, schema, source)
            batch = event_batch(ids, times, drained.role)
        ahead = batch.column(TIME).to_numpy() > self.now_us() + self.ahead_us
        if ahead.any():
            early = batch.filter(pa.array(ahead))
            bad = [*bad, *_letters(early, "event_time is in the future")]
            batch = batch.filter(pa.array(~ahead))
        return batch, bad

    def late(self, batches: list[pa.RecordBatch], rules: JoinRules) -> None:
        """Keeps what came too late for the join as dead letters."""
        for batch in batches:
            if KIND in batch.schema.names:
                for i, label in enumerate(rules.labels):
                    mine = batch.filter(pa.array(batch.column(KIND).to_numpy() == i))
                    self._bad(label, _letters(mine, "too late: behind the clock by the lateness"))
            else:
                self._bad(
                    "impressions", _letters(batch, "too late: behind the clock by the lateness")
                )

    def _bad(self, name: str, rows: list[BadRow]) -> None:
        self.counts["rows_bad"] += len(rows)
        self.counts.update(f"bad.{row.reason}" for row in rows)
        self.dead += [(name, row) for row in rows]

    def write_dead(self, path: Path) -> None:
        """Writes the dead letters, if there are any."""
        if not self.dead:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "file": pa.array([name for name, _ in self.dead], pa.string()),
                "row": pa.array([row.row for _, row in self.dead], pa.int64()),
                "reason": pa.array([row.reason for _, row in self.dead], pa.string()),
                "raw": pa.array([row.raw for _, row in self.dead], pa.string()),
            }
        )
        with replace_file(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def _letters(batch: pa.RecordBatch, reason: str) -> list[BadRow]:
    """Spells rows that were read already; of events the ids are gone, their hash is told."""
    names = payload(batch) or batch.schema.names
    rows = batch.select(names).to_pylist()
    return [BadRow(0, reason, json.dumps(row, default=str)) for row in rows]


def wall_clock_us() -> int:
    """Returns the time of day in microseconds since the epoch."""
    return int(np.datetime64("now", "us").astype(np.int64))
