"""Which stretch of event time goes into which shard, from a histogram of the kept rows.

Shard k holds exactly the kept rows with rank ``k * S`` to ``(k + 1) * S - 1`` in event-time order,
so shards do not depend on how the log was cut into pieces or on repeated rows. The histogram
only finds the stretch of time in which those ranks lie; the writer counts inside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_MAX_BINS = 1 << 18


@dataclass(frozen=True)
class TimeGrid:
    """Bins of ``2**shift`` microseconds from ``start_us``.

    Attributes:
        start_us: Left edge of bin 0.
        shift: Log2 of the bin width.
    """

    start_us: int
    shift: int

    @classmethod
    def over(cls, start_us: int, stop_us: int) -> TimeGrid:
        """Returns the finest grid over a stretch of time with at most 262,144 bins."""
        shift = max(0, (stop_us - start_us).bit_length() - (_MAX_BINS - 1).bit_length())
        return cls(start_us, shift)

    def count(self, times: Ints) -> tuple[Ints, Ints]:
        """Returns the non-empty bins, ascending, and the number of times in each."""
        return np.unique((times - self.start_us) >> self.shift, return_counts=True)


@dataclass(frozen=True)
class ShardPlan:
    """For each shard: the half-open stretch of time to read, rows to skip in it and to take.

    Attributes:
        starts_us: int64[K], ascending.
        stops_us: int64[K], ascending.
        skips: int64[K], kept rows of the stretch that belong to earlier shards.
        takes: int64[K], rows of the shard.
    """

    starts_us: Ints
    stops_us: Ints
    skips: Ints
    takes: Ints

    def overlapping(self, times: Ints) -> Iterable[tuple[int, int, int]]:
        """Yields ``(shard, low, high)``: ``times[low:high]`` lie in the shard's stretch."""
        lows = np.searchsorted(times, self.starts_us)
        highs = np.searchsorted(times, self.stops_us)
        for k in np.flatnonzero(highs > lows):
            yield int(k), int(lows[k]), int(highs[k])


def merge_histograms(histograms: Iterable[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Adds histograms of one grid; the result is again bins, ascending, and counts."""
    pairs = list(histograms)
    if not pairs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    bins, inverse = np.unique(np.concatenate([b for b, _ in pairs]), return_inverse=True)
    sizes = np.zeros(len(bins), np.int64)
    np.add.at(sizes, inverse, np.concatenate([c for _, c in pairs]))
    return bins, sizes


def plan_shards(histogram: tuple[Ints, Ints], grid: TimeGrid, shard_rows: int) -> ShardPlan:
    """Cuts the log into shards of ``shard_rows`` rows.

    Args:
        histogram: Kept rows per bin of the grid.
        grid: The grid.
        shard_rows: Rows per shard; the last one holds the rest.
    """
    bins, sizes = histogram
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    first = np.arange(0, total, shard_rows, dtype=np.int64)
    last = np.minimum(first + shard_rows, total) - 1
    low, high = np.searchsorted(ends, first, "right"), np.searchsorted(ends, last, "right")
    return ShardPlan(
        starts_us=grid.start_us + (bins[low] << grid.shift),
        stops_us=grid.start_us + ((bins[high] + 1) << grid.shift),
        skips=first - (ends[low] - sizes[low]),
        takes=last - first + 1,
    )
