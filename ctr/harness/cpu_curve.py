"""Log loss against the CPU seconds spent on learning, and what an arm is worth at equal seconds.

A technique that costs 1.4 times the step sees fewer examples in the time in which the base sees
all. Here both are read off at the moment at which the faster one ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.harness.stats import t_interval


@dataclass(frozen=True)
class CpuCurve:
    """The cumulative log loss of one training over its CPU time.

    Attributes:
        seconds: float64[N + 1], CPU seconds of learning up to each edge of the time buckets,
            burn-in included.
        weight: float64[N + 1], weight scored up to there; 0 at first.
        loss: float64[N + 1], sum of weighted losses up to there.
    """

    seconds: NDArray[np.float64]
    weight: NDArray[np.float64]
    loss: NDArray[np.float64]

    @classmethod
    def of(
        cls, scalar: NDArray[np.float64], burn_in: int, scored: int, us_per_example: float
    ) -> CpuCurve:
        """Makes the curve; a bucket's share of the examples is taken to be that of its weight.

        Args:
            scalar: float64[N, 4], ``scalar`` of ``bucket_sums``.
            burn_in: Examples before the scored ones.
            scored: Scored examples.
            us_per_example: Cost of learning, CPU microseconds.
        """
        weight, loss = (np.append(0.0, np.cumsum(scalar[:, i])) for i in (0, 3))
        examples = burn_in + scored * weight / weight[-1]
        return cls(1e-6 * us_per_example * examples, weight, loss)

    def log_loss(self, seconds: float) -> float | None:
        """Returns the mean loss scored up to a moment; None if nothing was scored by then.

        Within a bucket losses are taken to be even.

        Args:
            seconds: CPU seconds since the stream's first example.
        """
        weight = float(np.interp(seconds, self.seconds, self.weight))
        if weight <= 0.0:
            return None
        return float(np.interp(seconds, self.seconds, self.loss)) / weight

    def means(self) -> list[float | None]:
        """Returns the mean loss scored up to the end of each bucket."""
        pairs = zip(self.loss[1:], self.weight[1:], strict=True)
        return [float(loss / weight) if weight > 0.0 else None for loss, weight in pairs]


def equal_cpu(pairs: Sequence[tuple[CpuCurve, CpuCurve]]) -> dict[str, Any] | None:
    """Compares an arm with the base at the moment when the first of the two is done.

    Args:
        pairs: An arm's curve and the base's, per seed.

    Returns:
        ``cpu_s``, mean ``log_loss`` and ``base_log_loss`` at that moment, their ``difference`` with
        an interval over seeds, and ``differences`` by seed; None if one has not scored anything.
    """
    moments, own, others = [], [], []
    for arm, base in pairs:
        moment = float(min(arm.seconds[-1], base.seconds[-1]))
        loss, other = arm.log_loss(moment), base.log_loss(moment)
        if loss is None or other is None:
            return None
        moments.append(moment)
        own.append(loss)
        others.append(other)
    if not own:
        return None
    differences = [a - b for a, b in zip(own, others, strict=True)]
    interval = asdict(t_interval(differences))
    return {
        "cpu_s": float(np.mean(moments)),
        "log_loss": float(np.mean(own)),
        "base_log_loss": float(np.mean(others)),
        "difference": interval["value"],
        "low": interval["low"],
        "high": interval["high"],
        "differences": differences,
    }
