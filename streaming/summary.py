"""What an ingest read, dropped and wrote: ``summary.json`` and the table on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ctr.data.manifest import Shard
from ctr.schema import Schema
from streaming.inputs import InputFile
from streaming.source import Source


@dataclass(frozen=True)
class Summary:
    """Counts of one ingest.

    Attributes:
        schema: Name of the schema.
        files: Files read, relative to their input folder.
        files_empty: Empty files left out.
        rows_read: Physical rows of all logs, bad ones included, headers not.
        rows_bad: Rows in the dead letters.
        bad_by_reason: The same by reason.
        impressions: Usable impressions before de-duplication (after one row became several).
        duplicates: Impressions dropped because an earlier one has the same key.
        examples: Rows in the shards.
        events: By label: ``rows`` that were usable, ``joined`` (set a label), ``duplicates``
            (repeated, or later than the one that counted), ``outside_window``, ``orphan``
            (no impression of that id).
        nonfinite: NaN and infinite values kept, by numeric feature.
        positives: By label.
        unknown: Null labels, by label.
        first_event: Earliest event time, ISO 8601.
        last_event: Latest event time.
        shards: Number of shards.
        size_bytes: Their size.
        seconds: Wall time.
    """

    schema: str
    files: tuple[str, ...]
    files_empty: int
    rows_read: int
    rows_bad: int
    bad_by_reason: dict[str, int]
    impressions: int
    duplicates: int
    examples: int
    events: dict[str, dict[str, int]]
    nonfinite: dict[str, int]
    positives: dict[str, int]
    unknown: dict[str, int]
    first_event: str
    last_event: str
    shards: int
    size_bytes: int
    seconds: float

    def lines(self) -> Iterator[str]:
        """Yields the table for the terminal."""
        yield from _rows(
            (
                "files",
                f"{len(self.files):,}"
                + (f" ({self.files_empty} empty, left out)" if self.files_empty else ""),
            ),
            ("rows read", f"{self.rows_read:,}"),
            ("bad rows", f"{self.rows_bad:,}"),
            *((f"  {reason}", f"{n:,}") for reason, n in self.bad_by_reason.items()),
            ("duplicates", f"{self.duplicates:,}"),
            ("examples", f"{self.examples:,}"),
        )
        for label, n in self.positives.items():
            rate = f"{n / self.examples:.4f}" if self.examples else "-"
            unknown = f", {self.unknown[label]:,} unknown" if self.unknown[label] else ""
            yield from _rows((f"label {label}", f"{n:,} positive ({rate}){unknown}"))
        for label, parts in self.events.items():
            text = ", ".join(f"{n:,} {part.replace('_', ' ')}" for part, n in parts.items())
            yield from _rows((f"events {label}", text))
        yield from _rows(
            *((f"NaN or inf in {name}", f"{n:,}") for name, n in self.nonfinite.items())
        )
        yield from _rows(
            ("event time", f"{self.first_event} .. {self.last_event}"),
            ("shards", f"{self.shards:,} ({self.size_bytes / 1e6:,.1f} MB)"),
            (
                "seconds",
                f"{self.seconds:.1f} ({self.rows_read / max(self.seconds, 1e-9):,.0f} rows/s)",
            ),
        )


def _rows(*pairs: tuple[str, str]) -> Iterator[str]:
    for name, value in pairs:
        yield f"{name:<28}{value}" if len(name) < 28 else f"{name}  {value}"


def summarize(
    schema: Schema,
    source: Source,
    files: Sequence[InputFile],
    counts: Counter[str],
    shards: Sequence[Shard],
    seconds: float,
) -> Summary:
    """Builds the summary from the pipeline's counts and shards."""
    outcomes = ("rows", "joined", "duplicates", "outside_window", "orphan")
    return Summary(
        schema=schema.name,
        files=tuple(file.name for file in files),
        files_empty=counts["files_empty"],
        rows_read=counts["rows_read"],
        rows_bad=counts["rows_bad"],
        bad_by_reason=_under(counts, "bad."),
        impressions=counts["impressions"],
        duplicates=counts["duplicates"],
        examples=counts["examples"],
        events={
            event.label: {o: counts[f"events.{event.label}.{o}"] for o in outcomes}
            for event in source.events
        },
        nonfinite=_under(counts, "nonfinite."),
        positives={label.name: counts[f"positives.{label.name}"] for label in schema.labels},
        unknown={label.name: counts[f"unknown.{label.name}"] for label in schema.labels},
        first_event=_iso(shards[0].min_time_us) if shards else "",
        last_event=_iso(shards[-1].max_time_us) if shards else "",
        shards=len(shards),
        size_bytes=sum(shard.size_bytes for shard in shards),
        seconds=round(seconds, 3),
    )


def _under(counts: Counter[str], prefix: str) -> dict[str, int]:
    found = {k.removeprefix(prefix): n for k, n in counts.items() if k.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _iso(time_us: int) -> str:
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError):
        return f"{time_us} us"
