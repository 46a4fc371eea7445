"""Version after version under a light load: what becomes of memory and of requests."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.load.calls import summary
from serving.load.h2load import H2load, rest_target
from serving.load.server import BenchServer

_CLIENTS = 2
#: The first loads fill pools that are kept; they tell nothing about growth.
_SETTLED = 1 / 3


def churn(
    server: BenchServer, body: Path, versions: int, every_s: float, per_second: float
) -> dict[str, Any]:
    """Changes the version again and again.

    Memory is read at the end of each version's time: the one before it is gone by then.

    Args:
        server: Serves version 1.
        body: Of a request.
        versions: How many follow.
        every_s: Seconds from one to the next, or as long as loading takes if that is longer.
        per_second: Requests per second.

    Returns:
        Memory per version in MB, its slope with a 95 % interval, the seconds that versions took
        to be served, and what became of the requests.
    """
    target = rest_target(f"{server.url}:predict", body)
    load = H2load(target, _CLIENTS, seconds=versions * every_s, per_second=per_second)
    begin = time.monotonic()
    memory, waits = [], []
    for place in range(versions):
        start = time.monotonic()
        server.change_to(2 + place)
        waits.append(time.monotonic() - start)
        time.sleep(max(0.0, begin + (place + 1) * every_s - time.monotonic()))
        memory.append(server.memory_mb())
        print(f"version {2 + place}: {memory[-1]:.0f} MB", file=sys.stderr, flush=True)
    took = time.monotonic() - begin
    settled = memory[int(len(memory) * _SETTLED) :]
    return {
        "versions": versions,
        "every_s": round(took / versions, 1),
        "memory_mb": [round(value) for value in memory],
        "growth_mb": round(settled[-1] - settled[0], 1),
        "slope_mb_per_version": slope(settled),
        "seconds_to_serve": {"median": round(sorted(waits)[len(waits) // 2], 1),
                             "max": round(max(waits), 1)},
        "load": summary(load.wait()),
    }  # fmt: skip


def slope(values: Sequence[float]) -> dict[str, float] | None:
    """Returns the least-squares slope per step with its 95 % interval; None below 3 values.

    The interval takes the deviations from the line to be independent.
    """
    from scipy import stats

    if len(values) < 3:
        return None
    fit = stats.linregress(range(len(values)), values)
    half = float(stats.t.ppf(0.975, len(values) - 2) * fit.stderr)
    value = float(fit.slope)
    return {"value": round(value, 3), "low": round(value - half, 3), "high": round(value + half, 3)}
