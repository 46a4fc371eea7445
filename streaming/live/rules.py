"""When an example leaves the live join, and for how long its labels may still come."""

from __future__ import annotations

from dataclasses import dataclass

from ctr.errors import ConfigError
from ctr.schema import Schema
from streaming.source import Source


@dataclass(frozen=True)
class JoinRules:
    """Rules of attribution; all lengths are event time in microseconds.

    Attributes:
        labels: Labels that come as events.
        windows_us: For each, the longest time from impression to event that still counts.
        wait_us: An example leaves this long after its impression; what its labels are by then is
            told with it, what comes later follows as a correction.
        lateness_us: An element this far behind the clock is still treated exactly; one that is
            older goes to the late output.
        tick_us: Clock times at which examples leave are multiples of this.
        other_labels: Labels that come with the impression.

    Raises:
        ConfigError: a length is out of its range.
    """

    labels: tuple[str, ...]
    windows_us: tuple[int, ...]
    wait_us: int
    lateness_us: int
    tick_us: int
    other_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low in (("wait_us", 0), ("lateness_us", 0), ("tick_us", 1)):
            value = getattr(self, name)
            if value < low:
                raise ConfigError(f"live join, {name}: must be at least {low}, received {value}.")

    @property
    def horizon_us(self) -> int:
        """Time after an impression in which an event may still become a label of it."""
        return max(self.wait_us, *self.windows_us, 0)

    def tick_after(self, time_us: int) -> int:
        """Returns the first clock time at which something due at ``time_us`` may leave."""
        return -(-time_us // self.tick_us) * self.tick_us


def join_rules(
    schema: Schema,
    source: Source,
    wait_s: float | None = None,
    lateness_s: float = 600.0,
    tick_s: float | None = None,
) -> JoinRules:
    """Returns the rules for a source.

    Args:
        schema: What the examples are.
        source: Names the events and their windows.
        wait_s: Seconds that an example waits for its labels; None waits for the longest window.
        lateness_s: See ``JoinRules.lateness_us``.
        tick_s: See ``JoinRules.tick_us``; None takes a quarter of the wait, 1 to 60 seconds.

    Raises:
        ConfigError: the source has no events, or a length is out of its range.
    """
    if not source.events:
        raise ConfigError(
            "a live join needs [[source.events]] in the schema: without them every example is "
            "complete at once. Use `octr ingest` for such logs."
        )
    longest = max(event.window_s for event in source.events)
    wait = longest if wait_s is None else wait_s
    tick = min(60.0, max(1.0, wait / 4.0)) if tick_s is None else tick_s
    labels = tuple(event.label for event in source.events)
    return JoinRules(
        labels,
        tuple(round(event.window_s * 1e6) for event in source.events),
        round(wait * 1e6),
        round(lateness_s * 1e6),
        round(tick * 1e6),
        tuple(label.name for label in schema.labels if label.name not in labels),
    )
