"""Samplers: which examples a learner trains on.

Dropping is decided by the hash of the example id, so every model sees the same subset, and a
lower rate keeps a subset of what a higher one keeps. What is kept weighs ``1 / rate``, which
leaves losses, gradients, metrics and calibration unbiased even where the rate depends on the
label.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.api import Batch, Sampler
from ctr.data.examples import Block
from ctr.errors import ConfigError, ModuleError
from ctr.hashing import fingerprint64, mix, salt64


@dataclass(frozen=True)
class KeepAll:
    """Trains on every example with the weight it came with."""

    drops: ClassVar[bool] = False

    def factors(self, rows: Block) -> NDArray[np.float32]:
        """Returns ones."""
        return np.ones(len(rows.time_us), np.float32)

    def __call__(self, batch: Batch, logits: tf.Tensor) -> Batch:
        """Returns the batch unchanged."""
        return batch


@dataclass(frozen=True)
class InBatches:
    """What samplers share that decide by the running model, while batches are formed.

    Attributes:
        base: What has sampled before.
    """

    base: Sampler = field(default_factory=KeepAll, kw_only=True)

    @property
    def drops(self) -> bool:
        """True if ``base`` drops rows."""
        return self.base.drops

    def factors(self, rows: Block) -> NDArray[np.float32]:
        """Leaves what is decided before batches are formed to ``base``."""
        return self.base.factors(rows)


class Rule(Protocol):
    """One reason to keep fewer examples (a frozen dataclass)."""

    def rates(self, rows: Block) -> NDArray[np.float64]:
        """Returns float64[n], the share of examples like each row that is kept, in [0, 1]."""
        ...


@dataclass(frozen=True)
class RuleSampler:
    """Keeps a row at the lowest of the rates that its rules give it, before batches are formed.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 3.3: one rate for whatever meets
    any of the conditions, a pseudo-random choice that all models share, weight 1 / rate.
    Reduces to: KeepAll without rules.

    Attributes:
        rules: Each gives every row a rate.
        salt: Another one draws another subset.
    """

    drops: ClassVar[bool] = True

    rules: tuple[Rule, ...] = ()
    salt: str = "sample"

    def rates(self, rows: Block) -> NDArray[np.float64]:
        """Returns float64[n], the rate at which each row is kept."""
        lowest = np.ones(len(rows.time_us))
        for rule in self.rules:
            lowest = np.minimum(lowest, rule.rates(rows))
        return lowest

    def factors(self, rows: Block) -> NDArray[np.float32]:
        """Returns float32[n]: 1 / rate for kept rows, 0 for dropped ones."""
        rates = self.rates(rows)
        kept = uniform(fingerprint64(rows.frame.column("example_id")), self.salt) < rates
        return np.where(kept, 1.0 / np.where(kept, rates, 1.0), 0.0).astype(np.float32)

    def __call__(self, batch: Batch, logits: tf.Tensor) -> Batch:
        """Returns the batch unchanged: its rows have been sampled before."""
        return batch


def uniform(hashes: NDArray[np.uint64], salt: str) -> NDArray[np.float64]:
    """Returns numbers in [0, 1), float64[n], that are a function of hashes uint64[n] and salt."""
    return (mix(hashes, salt64(salt)) >> 11).astype(np.float64) * 2.0**-53


def with_rule(sampler: object, rule: Rule) -> RuleSampler:
    """Returns the sampler with one more rule.

    Raises:
        ModuleError: the sampler takes no rules.
    """
    if isinstance(sampler, KeepAll):
        return RuleSampler((rule,))
    if not isinstance(sampler, RuleSampler):
        raise ModuleError(
            f"{type(rule).__name__} cannot be added to a {type(sampler).__name__}. Put modules "
            "that sample while batches are formed before those that sample by the running model."
        )
    return replace(sampler, rules=(*sampler.rules, rule))


def check_rate(rate: float, what: str) -> None:
    """Raises ConfigError unless ``0 < rate <= 1``."""
    if not 0.0 < rate <= 1.0:
        raise ConfigError(
            f"{what}: rate must be above 0 and at most 1, received {rate}. Examples that are "
            "never kept cannot be made up for by weights; 0.05 to 0.25 is usual."
        )
