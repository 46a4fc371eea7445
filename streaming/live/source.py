"""What the driver of the live join asks of a source of events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streaming.formats.block import BadRow, RawBlock
from streaming.inputs import IMPRESSIONS
from streaming.source import Source

#: Places in a source by channel or file, as they are stored with what was made of them.
Offsets = dict[str, int]


@dataclass(frozen=True)
class Drained:
    """Raw rows of one channel.

    Attributes:
        channel: Rows of one channel come nearly in order of event time.
        role: ``IMPRESSIONS`` or the index of the label's events.
        name: Where they came from, for dead letters.
        n_bytes: Size as read.
        parse: Reads the rows; may raise SchemaError for a part that can never fit.
        alone: The same rows in smaller parts, tried one by one if ``parse`` fails.
    """

    channel: str
    role: int
    name: str
    n_bytes: int
    parse: Callable[[], list[RawBlock]]
    alone: tuple[Drained, ...] = ()


class EventSource(Protocol):
    """Where impressions and events come from."""

    def channels(self) -> tuple[str, ...]:
        """Channels that exist now; the clock waits for all of them."""
        ...

    def drain(
        self, offsets: Offsets, clocks: Mapping[str, int], max_bytes: int, timeout_s: float
    ) -> tuple[list[Drained], Offsets]:
        """Reads about ``max_bytes`` from ``offsets`` on, without waiting longer than the timeout.

        Args:
            offsets: Where to read on; empty means from the beginning.
            clocks: Newest event time by channel: the one that is behind is read first.
            max_bytes: Aimed size.
            timeout_s: Longest wait for the first row.

        Returns:
            What was read, and the places after it.
        """
        ...

    def committed(self, offsets: Offsets) -> None:
        """Takes notice that everything before ``offsets`` is safe."""
        ...

    def close(self) -> None:
        """Gives back connections."""
        ...


def channel_name(role: int, source: Source) -> str:
    """Returns ``impressions`` or the label."""
    return "impressions" if role == IMPRESSIONS else source.events[role].label


def unreadable(drained: Drained, reason: str) -> BadRow:
    """Returns the dead letter of a part that cannot be read at all."""
    return BadRow(0, reason, drained.name)
