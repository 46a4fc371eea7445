"""A live stream at a glance: producer, join, learner, exports and health, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_EVERY_S = 5.0


@dataclass(frozen=True)
class Moment:
    """What is known about the stream at one moment.

    Attributes:
        elapsed_s: Since the start.
        seconds: How long the producer takes.
        speed: Seconds of event time per second.
        phase: What is going on, in words.
        landed: Lines by log.
        join: The commit of the join (``DATA/live/commit.json``), empty before the first one.
        learner: The status of the run, empty before the first one.
    """

    elapsed_s: float
    seconds: float
    speed: float
    phase: str
    landed: Mapping[str, int]
    join: Mapping[str, Any]
    learner: Mapping[str, Any]


@dataclass
class _History:
    """Metric windows as they became complete."""

    windows: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, window: Mapping[str, Any] | None) -> None:
        if window:
            self.windows[int(window["start_us"])] = window

    def values(self, name: str) -> list[float]:
        found = [self.windows[at].get(name) for at in sorted(self.windows)]
        return [value for value in found if value is not None]


class Dashboard:
    """Shows moments in place on a terminal, and a line every five seconds elsewhere.

    Use as a context manager.

    Args:
        stream: Where to write; stderr if None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        out = sys.stderr if stream is None else stream
        self.console = Console(file=out, force_terminal=out.isatty(), highlight=False)
        self._live: Live | None = None
        if out.isatty() and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=False)
        self._history = _History()
        self._told_s = -_PLAIN_EVERY_S
        self._phase = ""

    def __enter__(self) -> Dashboard:
        """Takes over the lower part of the terminal."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the last picture on the terminal."""
        if self._live is not None:
            self._live.stop()

    def show(self, moment: Moment) -> None:
        """Shows how things are."""
        self._history.take(moment.learner.get("window"))
        if self._live is not None:
            self._live.update(self.picture(moment), refresh=True)
        elif moment.elapsed_s - self._told_s >= _PLAIN_EVERY_S or moment.phase != self._phase:
            self._told_s, self._phase = moment.elapsed_s, moment.phase
            self.console.print(Text(_line(moment)), soft_wrap=True)

    def picture(self, moment: Moment) -> Panel:
        """Returns a moment as a panel."""
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="bold cyan", no_wrap=True)
        rows.add_column()
        for name, text in _told(moment, self._history):
            rows.add_row(name, text)
        done = min(moment.elapsed_s / moment.seconds, 1.0)
        bar = "█" * round(40 * done) + "░" * (40 - round(40 * done))
        head = Text(f"{bar}  {moment.elapsed_s:3.0f} s  {moment.phase}")
        width = min(self.console.width, 100)
        return Panel(Group(head, Text(""), rows), title="octr demo --live", width=width)


def _told(moment: Moment, history: _History) -> list[tuple[str, Text]]:
    counts, learner = moment.join.get("counts", {}), moment.learner
    shown = sum(n for log, n in moment.landed.items() if log.startswith("impressions"))
    events = sum(moment.landed.values()) - shown
    gone = counts.get("impressions.duplicates", 0) + counts.get("impressions.late", 0)
    in_hand = counts.get("impressions", 0) - counts.get("examples", 0) - gone
    rows = [
        ("producer", f"{shown:,} impressions, {events:,} events; {moment.speed:,.0f} times as "
                     "fast as time"),
        ("join", f"{counts.get('examples', 0):,} examples in {moment.join.get('n_shards', 0):,} "
                 f"shards, {in_hand:,} in hand, {_sum(counts, 'corrections'):,} late labels"),
        ("", f"{counts.get('impressions.duplicates', 0) + _sum(counts, 'duplicates'):,} repeated, "
             f"{_sum(counts, 'orphan'):,} orphan, {_sum(counts, 'outside_window'):,} outside the "
             f"window, {counts.get('rows_bad', 0):,} dead letters"),
    ]  # fmt: skip
    if not learner:
        return [(name, Text(text)) for name, text in (*rows, ("learner", "starting"))]
    behind_s = (learner["data_event_time_us"] - learner["event_time_us"]) / 1e6
    rows += [
        ("learner", f"{learner['examples']:,} learned at {learner['examples_per_second']:,.0f}/s, "
                    f"{learner['lag_examples']:,} to go"),
        ("", f"at {_clock(learner['event_time_us'])}, {behind_s / 60:,.0f} min behind the data; "
             f"checkpoint at {learner['checkpoint_examples']:,}"),
    ]  # fmt: skip
    names = (("log_loss", "log loss"), ("auc", "AUC"), ("calibration", "calibration"))
    for name, title in names:
        values = history.values(name)
        if values:
            rows.append((title, f"{values[-1]:.4f}  {_sparkline(values)}"))
    export = learner.get("export") or {}
    newest = export.get("newest")
    told = f"{export.get('exports', 0)} versions"
    told += f", newest of {_clock(newest['event_time_us'])}" if newest else ""
    told += ", one on its way" if export.get("running") else ""
    told += f", {export['paused']} held back" if export.get("paused") else ""
    rows.append(("exports", told))
    told_rows = [(name, Text(text)) for name, text in rows]
    alarms = learner["alarms"]
    calm = f"no alarm in {learner['health_windows']} windows"
    told_rows.append(
        ("health", Text("\n".join(alarms), "bold red") if alarms else Text(calm, "green"))
    )
    return told_rows


def _line(moment: Moment) -> str:
    counts, learner = moment.join.get("counts", {}), moment.learner
    parts = [f"{moment.elapsed_s:.0f} s, {moment.phase}: {sum(moment.landed.values()):,} lines"]
    parts.append(f"{counts.get('examples', 0):,} examples joined")
    if learner:
        window = learner.get("window") or {}
        parts.append(f"{learner['examples']:,} learned")
        parts += [f"{name} {window[name]:.4f}" for name in ("log_loss", "calibration")
                  if window.get(name) is not None]  # fmt: skip
        parts.append(f"{(learner.get('export') or {}).get('exports', 0)} exports")
        parts += [f"ALARM {alarm}" for alarm in learner["alarms"]]
    return ", ".join(parts)


def _sum(counts: Mapping[str, int], what: str) -> int:
    return sum(n for name, n in counts.items() if name.startswith("events.")
               and name.endswith(f".{what}"))  # fmt: skip


def _sparkline(values: list[float], width: int = 48) -> str:
    values = values[-width:]
    low, high = min(values), max(values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in values)


def _clock(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%b %d %H:%M}"
