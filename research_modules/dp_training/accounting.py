"""What noise buys: the privacy of a single chronological pass, by ``dp-accounting`` alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ctr.errors import ConfigError


def _package() -> Any:
    try:
        import dp_accounting
    except ImportError as error:
        raise ConfigError(
            "privacy accounting needs the package dp-accounting, which is not installed. Install "
            "it with: pip install 'online-ctr[dp]'"
        ) from error
    return dp_accounting


@dataclass(frozen=True)
class Guarantee:
    """What a run may say about its released parameters.

    Attributes:
        noise: Noise multiplier: standard deviation of the noise over the clipping norm.
        epsilon: The guarantee, for ``delta``.
        delta: The probability with which it may fail.
        unit: What is protected: ``example``, or ``user``.
        per_unit: Most examples of one unit that are learned, each in another release.
    """

    noise: float
    epsilon: float
    delta: float
    unit: str
    per_unit: int

    def __str__(self) -> str:
        whom = "one logged example" if self.unit == "example" else (
            f"one user, of whom at most {self.per_unit} examples are learned, no two in one release"
        )  # fmt: skip
        if not self.noise:
            return "no privacy: gradients are clipped, but no noise is added"
        return (
            f"({self.epsilon:.3g}, {self.delta:g})-DP for {whom} (zero-out neighbours, noise "
            f"multiplier {self.noise:.4g}); single chronological pass, hence no amplification by "
            "sampling; Gaussian mechanism by dp-accounting. It covers the released parameters, "
            "not metrics on raw labels, tuning, vocabularies or logs, and the noise comes from a "
            "floating-point generator that is no cryptographic one."
        )


def single_pass_epsilon(noise: float, delta: float, per_unit: int = 1) -> float:
    """Returns epsilon of one pass in which a unit takes part in ``per_unit`` releases.

    Batches are disjoint, so each example is in one Gaussian release; the number of releases does
    not matter. ``k`` releases of one unit are one with ``1 / sqrt(k)`` of the noise.
    """
    if not noise:
        return math.inf
    return float(_package().get_epsilon_gaussian(noise / math.sqrt(per_unit), delta))


def single_pass_noise(epsilon: float, delta: float, per_unit: int = 1) -> float:
    """Returns the noise multiplier that gives ``epsilon``; inverse of the former."""
    if math.isinf(epsilon):
        return 0.0
    return float(_package().get_sigma_gaussian(epsilon, delta)) * math.sqrt(per_unit)


def sampled_epsilon(
    noise: float, probability: float, steps: int, delta: float, accountant: str = "pld"
) -> float:
    """Returns epsilon of training whose every batch is a Poisson sample of a stored data set.

    This is *not* what an online learner does: nothing there is sampled, see
    :func:`single_pass_epsilon`. It is here to show how much a wrong claim would hide.

    Args:
        noise: Noise multiplier.
        probability: With which each example is in a batch.
        steps: Number of batches.
        delta: Probability with which the guarantee may fail.
        accountant: ``rdp`` or ``pld`` (tighter).
    """
    package = _package()
    if accountant == "rdp":
        from dp_accounting import rdp

        ledger: Any = rdp.RdpAccountant()
    else:
        from dp_accounting import pld

        ledger = pld.PLDAccountant()
    event = package.PoissonSampledDpEvent(probability, package.GaussianDpEvent(noise))
    ledger.compose(event, steps)
    return float(ledger.get_epsilon(delta))
