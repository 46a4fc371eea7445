"""What became of the requests of a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ctr.errors import ConfigError


class Call(NamedTuple):
    """A request that was answered well.

    Attributes:
        start: When it was sent, seconds since 1970.
        seconds: Until its answer was there.
    """

    start: float
    seconds: float


class Measured(NamedTuple):
    """All requests of a measurement.

    Attributes:
        calls: Those that were answered well.
        failed: How many were refused or lost.
    """

    calls: Sequence[Call]
    failed: int


def summary(found: Measured) -> dict[str, Any]:
    """Returns the number of requests, their rate per second, p50 and p99 in ms, and the failed.

    Raises:
        ConfigError: no request was answered well.
    """
    if not found.calls:
        raise ConfigError(
            f"no request was answered, {found.failed} failed: measure for longer with --seconds."
        )
    ends = [call.start + call.seconds for call in found.calls]
    span = max(ends) - min(call.start for call in found.calls)
    return {
        "requests": len(found.calls),
        "per_second": round(len(found.calls) / span, 1),
        "p50_ms": percentile_ms(found.calls, 50),
        "p99_ms": percentile_ms(found.calls, 99),
        "failed": found.failed,
    }


def percentile_ms(calls: Sequence[Call], percent: int) -> float:
    """Returns the time that this share of the requests did not exceed, milliseconds."""
    times = sorted(call.seconds for call in calls)
    return round(1e3 * times[-(-percent * len(times) // 100) - 1], 2)
