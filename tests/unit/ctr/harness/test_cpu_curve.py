"""Log loss over CPU time, against sums that can be added by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr.harness.cpu_curve import CpuCurve, equal_cpu


def curve(losses: list[float], us: float, burn_in: int = 0, per_bucket: int = 100) -> CpuCurve:
    """Returns the curve of buckets of equal size with the given mean losses."""
    scalar: NDArray[np.float64] = np.zeros((len(losses), 4))
    scalar[:, 0] = per_bucket
    scalar[:, 3] = per_bucket * np.array(losses)
    return CpuCurve.of(scalar, burn_in, per_bucket * len(losses), us)


def test_the_curve_is_the_mean_loss_so_far_over_the_time_spent() -> None:
    found = curve([0.6, 0.4, 0.2], us=1e4, burn_in=50)
    assert found.seconds == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert found.means() == pytest.approx([0.6, 0.5, 0.4])
    assert found.log_loss(2.0) == pytest.approx((0.6 + 0.5 * 0.4) / 1.5)
    assert found.log_loss(0.5) is None


def test_equal_cost_is_the_comparison_at_equal_examples() -> None:
    found = equal_cpu([(curve([0.5, 0.3], 1e4), curve([0.6, 0.4], 1e4))])
    assert found is not None
    assert found["difference"] == pytest.approx(-0.1)
    assert found["cpu_s"] == pytest.approx(2.0)
    assert found["low"] is None


@pytest.mark.parametrize(("us", "arm_loss"), [(2e4, 0.55), (0.5e4, 0.4)])
def test_the_slower_one_has_seen_less_by_then(us: float, arm_loss: float) -> None:
    """At twice the cost an arm has seen one bucket of two, at half of it the base has."""
    losses = [0.55, 0.25]
    found = equal_cpu([(curve(losses, us), curve([0.6, 0.4], 1e4))] * 2)
    assert found is not None
    assert found["log_loss"] == pytest.approx(arm_loss)
    assert found["base_log_loss"] == pytest.approx(0.5 if us > 1e4 else 0.6)
    assert (found["low"], found["high"]) == pytest.approx((found["difference"],) * 2)


def test_an_arm_that_has_scored_nothing_by_then_is_not_compared() -> None:
    arm, base = (curve([0.5, 0.3], us, burn_in=200) for us in (4e4, 1e4))
    assert equal_cpu([(arm, base)]) is None
    assert equal_cpu([]) is None
