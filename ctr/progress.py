"""How far a pass over a stream has come: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from ctr.training import Status

_METRICS = (("log_loss", "log loss", ".4f"), ("auc", "AUC", ".4f"), ("calibration", "calib", ".3f"))


class Progress:
    """Shows examples done, examples/s, time left, event time and metrics on stderr.

    Use as a context manager. The rate is over the last half minute or so, because the first
    seconds go into compilation. Calls are cheap: between two refreshes, one clock reading.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        start: int = 0,
        every_s: float | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts at ``start`` examples.

        Args:
            total: Examples of the whole stream, None if unknown.
            start: Examples done before, by the life of the run that this one resumes.
            every_s: Seconds between refreshes; None means 0.5 on a terminal, 5 elsewhere.
            stream: Where to write; stderr if None.
            clock: Source of seconds.
        """
        out = sys.stderr if stream is None else stream
        # Said explicitly, because variables such as FORCE_COLOR make rich believe in a terminal.
        self._console = Console(file=out, force_terminal=out.isatty(), highlight=False)
        self._has_cursor = out.isatty() and not self._console.is_dumb_terminal
        self._live: Live | None = None
        self._every_s = every_s or (0.5 if self._has_cursor else 5.0)
        self._total, self._clock = total, clock
        self._seen = [(clock(), start)]
        self._due = self._seen[0][0] + self._every_s
        self._line = ""
        self._shown = True

    def __enter__(self) -> Self:
        """Takes over the last line of the terminal, if there is one."""
        if self._has_cursor:
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shows the last state and gives the terminal back."""
        if not self._shown:
            self._show()
        if self._live is not None:
            self._live.stop()

    def update(
        self,
        examples: int,
        event_time_us: int | None = None,
        metrics: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Reports where the stream stands; writes only when a refresh is due.

        Args:
            examples: Examples done so far, those of earlier lives included.
            event_time_us: Event time of the newest one.
            metrics: Returns metrics by name; called only for a line that is shown or last.
        """
        now = self._clock()
        due = now >= self._due
        if not due and examples != self._total:
            return
        self._seen.append((now, examples))
        while len(self._seen) > 2 and now - self._seen[1][0] > 30:
            self._seen.pop(0)
        self._line = self._text(examples, event_time_us, metrics() if metrics else {})
        self._shown = False
        if due:
            self._due = now + self._every_s
            self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(Text(self._line, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self._console.print(Text(self._line), soft_wrap=True)
        self._shown = True

    def _text(self, examples: int, event_time_us: int | None, metrics: Mapping[str, Any]) -> str:
        (then, before), (now, _) = self._seen[0], self._seen[-1]
        rate = (examples - before) / (now - then) if now > then else 0.0
        parts = [f"{examples:,} examples"]
        if self._total:
            parts[0] = f"{examples:,} of {self._total:,} ({examples / self._total:.0%})"
        parts.append(f"{rate:,.0f}/s")
        if self._total and rate > 0 and examples < self._total:
            left = timedelta(seconds=round((self._total - examples) / rate))
            parts.append(f"{left} left")
        if event_time_us is not None:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event_time_us)
            parts.append(f"at {moment:%Y-%m-%d %H:%M}")
        for key, name, form in _METRICS:
            if metrics.get(key) is not None:
                parts.append(f"{name} {metrics[key]:{form}}")
        return "  ".join(parts)


@contextmanager
def progress_line(total: int | None, start: int = 0) -> Iterator[Callable[[Status], None]]:
    """Yields a function that shows a trainer's status; see :class:`Progress`."""
    with Progress(total, start=start) as progress:

        def show(status: Status) -> None:
            progress.update(
                status.examples, status.time_us, lambda: status.metrics.totals().values()
            )

        yield show
