"""The ingest pipeline: pieces -> staged parts and keys -> verdicts -> shards -> one result file."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsList, AsSingleton

from ctr.data.manifest import Shard, write_atomically
from ctr.errors import CtrError
from streaming.arrow_coder import register
from streaming.dedup_join import ResolveKeys
from streaming.inputs import Piece
from streaming.order_write import (
    AssignParts,
    AssignVerdicts,
    CountDropped,
    CountTimes,
    Stretch,
    WriteShard,
)
from streaming.shard_plan import ShardPlan, TimeGrid, merge_histograms, plan_shards
from streaming.source import key_columns
from streaming.spill import Spilled
from streaming.stage import Part, Reading, StagePiece


@dataclass(frozen=True)
class Places:
    """Folders of one run, visible to all workers.

    Attributes:
        data: The output.
        stage: Staged parts and the result; removed at the end.
        dead: Dead letters.
    """

    data: Path
    stage: Path
    dead: Path

    @property
    def result(self) -> Path:
        """The file in which the pipeline leaves its shards and counts."""
        return self.stage / "result.json"


def build(
    root: beam.Pipeline,
    pieces: list[Piece],
    reading: Reading,
    places: Places,
    n_partitions: int,
    shard_rows: int,
) -> None:
    """Adds all steps to a pipeline.

    Args:
        root: The pipeline.
        pieces: What to read.
        reading: How to read it.
        places: Where to write.
        n_partitions: Partitions of the key space.
        shard_rows: Rows per shard.
    """
    schema, source = reading.schema, reading.source
    staging = (
        root
        | "Pieces" >> beam.Create(pieces)
        | "Spread" >> beam.Reshuffle()
        | "Stage"
        >> beam.ParDo(StagePiece(reading, places.stage, places.dead, n_partitions)).with_outputs(
            "keys", "counts", main="parts"
        )
    )
    parts = (
        staging.parts
        | "Parts" >> beam.Map(_same).with_output_types(Part)
        | "PartsDone" >> beam.Reshuffle()
    )
    counts = [staging.counts]
    verdicts = None
    if key_columns(schema, source):
        resolved = (
            staging.keys
            | "Keys" >> beam.Map(_same).with_output_types(tuple[int, Spilled])
            | "ByKey" >> beam.GroupByKey()
            | "Resolve"
            >> beam.ParDo(ResolveKeys(source.events)).with_outputs("counts", main="verdicts")
        )
        verdicts = resolved.verdicts | "Verdicts" >> beam.Map(_same).with_output_types(
            pa.RecordBatch
        )
        counts.append(resolved.counts)
    plan = _plan(parts, verdicts, shard_rows)
    grouped = {
        "stretches": parts
        | "AssignParts" >> beam.ParDo(AssignParts(), plan).with_output_types(tuple[int, Stretch])
    }
    if verdicts is not None:
        grouped["verdicts"] = verdicts | "AssignVerdicts" >> beam.ParDo(
            AssignVerdicts(), plan
        ).with_output_types(tuple[int, pa.RecordBatch])
    written = (
        grouped
        | "ByShard" >> beam.CoGroupByKey()
        | "Write"
        >> beam.ParDo(WriteShard(schema, source, places.data), plan).with_outputs(
            "counts", main="shards"
        )
    )
    counts.append(written.counts)
    total = counts | "AllCounts" >> beam.Flatten() | "Sum" >> beam.CombineGlobally(add_counts)
    shards = written.shards | "Shards" >> beam.Map(_same).with_output_types(Shard)
    _ = (
        root
        | "Once" >> beam.Create([None])
        | "Result" >> beam.Map(_leave_result, places.result, AsSingleton(total), AsList(shards))
    )


def _plan(parts: Any, verdicts: Any, shard_rows: int) -> AsSingleton:
    spans = parts | "Span" >> beam.Map(lambda part: (part.min_time_us, part.max_time_us))
    grid = AsSingleton(spans | "Grid" >> beam.CombineGlobally(merge_spans) | beam.Map(_grid))
    shown = parts | "CountTimes" >> beam.ParDo(CountTimes(), grid)
    histograms = [AsSingleton(shown | "Shown" >> beam.CombineGlobally(merge_histograms))]
    if verdicts is not None:
        dropped = verdicts | "CountDropped" >> beam.ParDo(CountDropped(), grid)
        histograms.append(
            AsSingleton(dropped | "Dropped" >> beam.CombineGlobally(merge_histograms))
        )
    # Two side inputs and no Flatten: the local runner would wait for the second use of `parts`,
    # which itself waits for the plan.
    once = parts.pipeline | "PlanOnce" >> beam.Create([None])
    return AsSingleton(once | "Plan" >> beam.Map(_cut, grid, shard_rows, *histograms))


def _same(element: Any) -> Any:
    """Changes nothing; carries the type, hence the coder, of an output among several."""
    return element


def merge_spans(spans: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """Returns the span that covers all, or None for none."""
    known = [span for span in spans if span is not None]
    return (min(s[0] for s in known), max(s[1] for s in known)) if known else None


def add_counts(counts: Iterable[Counter[str]]) -> Counter[str]:
    """Adds counters, zero entries included."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total


def _grid(span: tuple[int, int] | None) -> TimeGrid:
    return TimeGrid.over(*span) if span else TimeGrid(0, 0)


def _cut(_: None, grid: TimeGrid, shard_rows: int, *histograms: Any) -> ShardPlan:
    return plan_shards(merge_histograms(histograms), grid, shard_rows)


def _leave_result(_: None, path: Path, counts: Counter[str], shards: list[Shard]) -> None:
    ordered = sorted(shards, key=lambda shard: shard.sequence)
    result = {"counts": counts, "shards": [asdict(shard) for shard in ordered]}
    write_atomically(path, json.dumps(result, sort_keys=True).encode())


def run(
    pieces: list[Piece],
    reading: Reading,
    places: Places,
    n_partitions: int,
    shard_rows: int,
    runner_options: Iterable[str],
) -> tuple[Counter[str], list[Shard]]:
    """Builds the pipeline, runs it to its end and returns its counts and shards."""
    register()
    options = pipeline_options(list(runner_options))
    root = beam.Pipeline(options=options)
    build(root, pieces, reading, places, n_partitions, shard_rows)
    with own_errors():
        root.run().wait_until_finish()
    result = json.loads(places.result.read_text())
    return Counter(result["counts"]), [Shard(**shard) for shard in result["shards"]]


def pipeline_options(flags: list[str]) -> PipelineOptions:
    """Returns the user's runner options; without a runner among them, the local one is pinned.

    Beam's own default tries to download another local runner first.
    """
    if not any(flag == "--runner" or flag.startswith("--runner=") for flag in flags):
        flags = ["--runner=FnApiRunner", *flags]
    if any(flag.endswith("FnApiRunner") for flag in flags):
        _switch_off_state_cache()
    return PipelineOptions(flags)


def _switch_off_state_cache() -> None:
    # To size what it caches, the local worker walks the globals of every imported module, for
    # each value; no option reaches that cache, and one machine gains nothing from it.
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    worker_handlers.STATE_CACHE_SIZE_MB = 0


@contextmanager
def own_errors() -> Iterator[None]:
    """Lets our errors out of a local runner as they were raised, without its log of them."""
    logger = logging.getLogger("apache_beam.runners.common")
    logger.addFilter(_is_foreign)
    try:
        yield
    except CtrError as error:
        raise type(error)(without_step(str(error))) from None
    finally:
        logger.removeFilter(_is_foreign)


def _is_foreign(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], CtrError | OSError))


def without_step(message: str) -> str:
    """Cuts off what Beam appends to the message of an error inside a step."""
    return message.partition(" [while running")[0]


def failures(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yields ``(error class, message)`` of our own errors inside what a runner raised."""
    for name in ("SchemaError", "StreamError"):
        for found in str(error).split(f"ctr.errors.{name}: ")[1:]:
            yield name, without_step(found.split("\n")[0])
