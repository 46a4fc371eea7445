"""The live join through Beam, for ``octr bench live --beam``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics, MetricsFilter

from streaming.arrow_coder import RecordBatchCoder
from streaming.live.join import JoinLive
from streaming.live.rules import JoinRules
from streaming.pipeline import pipeline_options

_NAME = "bench.live"


def join_through_beam(
    batches: Sequence[pa.RecordBatch], rules: JoinRules, n_partitions: int
) -> tuple[float, Counter[str]]:
    """Replays batches through :class:`JoinLive` on one worker of the local runner.

    All that a pipeline has to do is in it: batches are read from files, split by partition,
    encoded and decoded as elements, kept in state, and timers fire tick after tick.

    Args:
        batches: Of ``shown_batch`` or ``event_batch``.
        rules: Of the join.
        n_partitions: Of the key space.

    Returns:
        CPU seconds of the process, and the counts of the join with ``rows``, those of examples
        that came out.
    """
    coder = RecordBatchCoder()
    with TemporaryDirectory() as name:
        paths = [Path(name) / f"{k:06d}.arrow" for k in range(len(batches))]
        for path, batch in zip(paths, batches, strict=True):
            path.write_bytes(coder.encode(batch))
        cpu = time.process_time()
        root = beam.Pipeline(options=pipeline_options([]))
        files = root | beam.Create([str(path) for path in paths])
        joined = files | beam.Map(_read) | JoinLive(rules, n_partitions)
        _ = joined.examples | "Rows" >> beam.ParDo(_CountRows())
        _ = joined.counts | "Counts" >> beam.ParDo(_AddCounts())
        result = root.run()
        result.wait_until_finish()
        cpu = time.process_time() - cpu
    told = result.metrics().query(MetricsFilter().with_namespace(_NAME))["counters"]
    return cpu, Counter({count.key.metric.name: count.committed for count in told})


def _read(path: str) -> pa.RecordBatch:
    batch: pa.RecordBatch = RecordBatchCoder().decode(Path(path).read_bytes())
    return batch


class _CountRows(beam.DoFn):
    def process(self, batch: pa.RecordBatch) -> Iterator[None]:
        Metrics.counter(_NAME, "rows").inc(batch.num_rows)
        yield from ()


class _AddCounts(beam.DoFn):
    def process(self, counts: Counter[str]) -> Iterator[None]:
        for name, n in counts.items():
            Metrics.counter(_NAME, name).inc(n)
        yield from ()
