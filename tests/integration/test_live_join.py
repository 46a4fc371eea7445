"""The live join on Beam's runners: bounded replay, and a stream whose watermark moves."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that
from live_events import Event, Shown, batches, expected, rules, tuples

from streaming.arrow_coder import RecordBatchCoder
from streaming.live.bench import BATCH, bench_beam
from streaming.live.join import JoinLive
from streaming.pipeline import pipeline_options


def traffic(seed: int, n: int = 60):
    """Impressions 5 s apart, with some events, early and late ones, and orphans."""
    rng = random.Random(seed)
    shown = [Shown(5 * k, f"i{k}") for k in range(n)]
    events = [Event(5 * k + rng.randint(-3, 45), f"i{k}", rng.randint(0, 1)) for k in range(n)]
    return [*shown, *events, Event(50, "nobody")]


def check(want: Counter):
    def found(rows: list[pa.RecordBatch]) -> None:
        assert tuples(rows) == want

    return found


def outputs(joined):
    return (joined.examples, joined.corrections) | beam.Flatten()


def counted(want: dict[str, int]):
    def check_counts(found: list[Counter]) -> None:
        total = sum(found, Counter())
        assert {name: total[name] for name in want} == want

    return check_counts


@pytest.mark.parametrize("wait_s", [0, 40])
def test_bounded_replay(wait_s: int) -> None:
    how = rules(wait_s, tick_s=20)
    elements = traffic(1)
    random.Random(2).shuffle(elements)
    pieces = [b for at in range(0, len(elements), 7) for b in batches(elements[at : at + 7])]
    with beam.Pipeline(options=pipeline_options([])) as root:
        joined = root | beam.Create(pieces) | JoinLive(how, 3)
        assert_that(outputs(joined), check(expected(elements, how)), label="rows")
        assert_that(
            joined.counts,
            counted({"impressions": 60, "examples": 60, "events.click.orphan": 1}),
            label="counts",
        )


def test_worker_processes_give_the_same_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers are new interpreters, which must find what the check of the result is made of.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    how = rules(40, tick_s=20)
    elements = traffic(1)
    pieces = [b for at in range(0, len(elements), 7) for b in batches(elements[at : at + 7])]
    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    with beam.Pipeline(options=pipeline_options(flags)) as root:
        joined = root | beam.Create(pieces) | beam.Reshuffle() | JoinLive(how, 3)
        assert_that(outputs(joined), check(expected(elements, how)), label="rows")


def streamed(pieces: list[tuple[list, int]]) -> TestStream:
    stream = TestStream(coder=RecordBatchCoder())
    for elements, watermark in pieces:
        if elements:
            stream = stream.add_elements(batches(elements))
        stream = stream.advance_watermark_to(watermark)
    return stream.advance_watermark_to_infinity()


def streaming_pipeline() -> TestPipeline:
    options = PipelineOptions()
    options.view_as(StandardOptions).streaming = True
    return TestPipeline("BundleBasedDirectRunner", options=options)


@pytest.mark.parametrize("pieces", [1, 4])
def test_stream_with_jumps_of_the_watermark(pieces: int) -> None:
    how = rules(10, tick_s=20)
    elements = sorted(traffic(3, 30), key=lambda e: e.time_s)
    size = -(-len(elements) // pieces)
    cut = [elements[at : at + size] for at in range(0, len(elements), size)]
    marks = [max(0, part[0].time_s) for part in cut[1:]] + [400]
    with streaming_pipeline() as root:
        joined = root | streamed(list(zip(cut, marks, strict=True))) | JoinLive(how, 2)
        assert_that(outputs(joined), check(expected(elements, how)), label="rows")


def test_nothing_leaves_before_it_is_due() -> None:
    """A join that flushes all it holds at the first timer loses the second click."""
    how = rules(10, lateness_s=0)
    elements = [Shown(0, "a"), Shown(8, "b"), Event(17, "b")]
    pieces = [([elements[0], elements[1]], 11), ([elements[2]], 30)]
    with streaming_pipeline() as root:
        joined = root | streamed(pieces) | JoinLive(how, 1)
        want = Counter(
            {
                ("a", "u", 0, (0, 0), (None, None), 0): 1,
                ("b", "u", 8, (1, 0), (17, None), 0): 1,
            }
        )
        assert expected(elements, how) == want
        assert_that(outputs(joined), check(want), label="rows")


def test_labels_behind_the_watermark_become_corrections() -> None:
    how = rules(10, lateness_s=1000)
    pieces = [([Shown(0, "a")], 100), ([Event(5, "a"), Event(5, "ghost")], 200), ([], 2000)]
    with streaming_pipeline() as root:
        joined = root | streamed(pieces) | JoinLive(how, 1)
        want = Counter(
            {
                ("a", "u", 0, (0, 0), (None, None), 0): 1,
                ("a", "u", 0, (1, None), (5, None), 1): 1,
            }
        )
        assert_that(outputs(joined), check(want), label="rows")
        assert_that(joined.counts, counted({"events.click.orphan": 1}), label="counts")


def test_state_of_a_partition_is_collected() -> None:
    """After the horizon a repeat is late, not a new example; the clock alone remembers."""
    how = rules(0, lateness_s=10, tick_s=10)
    pieces = [([Shown(0, "a")], 100), ([Shown(0, "a")], 200)]
    with streaming_pipeline() as root:
        joined = root | streamed(pieces) | JoinLive(how, 1)
        assert_that(outputs(joined), check(expected([Shown(0, "a")], how)), label="rows")
        late = joined.late | beam.Map(lambda b: b.num_rows)
        assert_that(late, lambda found: pytest.fail(str(found)) if found != [1] else None,
                    label="late")  # fmt: skip


def test_the_benchmark_through_beam_loses_no_click() -> None:
    result = bench_beam(batches=2, rate=200.0, n_partitions=2)
    assert result["joined"] == result["joined_expected"] > 500
    assert result["held"] == 2 * BATCH
