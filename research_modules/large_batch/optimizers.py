"""The rules as parts of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tensorflow as tf

from ctr.errors import ConfigError
from research_modules.large_batch.rules import RuleState, Settings


@dataclass(frozen=True)
class TowerRule:
    """A dense optimizer: one of the four rules; fields as in :class:`Settings`."""

    name: str = "adam"
    rate: float = 1e-3
    one_minus_beta1: float = 0.1
    weight_decay: float = 0.0
    warmup: int = 0
    total: int = 0
    power: float = 2.0
    end: float = 1e-4
    beta2: float = 0.99
    epsilon: float = 1e-8
    eeta: float = 1e-3
    summed: bool = True

    def __post_init__(self) -> None:
        positive = {"rate": self.rate, "epsilon": self.epsilon, "trust": self.eeta}
        for name, value in positive.items():
            if not value > 0.0:
                raise ConfigError(f"large_batch: {name} must be above 0, received {value}.")
        if not 0.0 < self.one_minus_beta1 <= 1.0 or not 0.0 <= self.beta2 < 1.0:
            raise ConfigError(
                "large_batch: one_minus_beta1 must be above 0 and at most 1, and beta2 at least 0 "
                f"and below 1; received {self.one_minus_beta1} and {self.beta2}."
            )
        if min(self.weight_decay, self.warmup, self.end, self.power) < 0:
            raise ConfigError(
                "large_batch: weight_decay, warmup_steps, power and end_rate must be at least 0, "
                f"received {self.weight_decay}, {self.warmup}, {self.power} and {self.end}."
            )
        if self.total and not self.warmup < self.total:
            raise ConfigError(
                "large_batch: total_steps must be 0 (no end) or more than warmup_steps, received "
                f"{self.total} and {self.warmup}."
            )

    def build(self, variables: Sequence[tf.Variable]) -> RuleState:
        """Creates the slots."""
        settings = Settings(
            self.rate, self.one_minus_beta1, self.weight_decay, self.warmup, self.total,
            self.power, self.end, self.beta2, self.epsilon, self.eeta, self.summed,
        )  # fmt: skip
        return RuleState(self.name, settings, variables)


@dataclass(frozen=True)
class TableAsLayer:
    """A row optimizer that is none: the whole table is one layer of a dense rule.

    Every row moves with every batch (momentum, decay), and trust ratios take the norm of the whole
    table. Gradients of an id that occurs twice are added first.

    Attributes:
        rule: The rule.
    """

    rule: TowerRule = field(default_factory=TowerRule)

    def build(self, weights: tf.Variable, n_inputs: int) -> LayerRows:
        """Creates the slots of ``weights`` float32[R, C]."""
        del n_inputs
        return LayerRows(self.rule.build([weights]), weights)


class LayerRows(tf.Module):
    """The built form of :class:`TableAsLayer`."""

    def __init__(self, state: RuleState, weights: tf.Variable) -> None:
        super().__init__(name="table_as_layer")
        self.state = state
        self._n_rows = weights.shape[0]

    def apply(self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor) -> None:
        """Moves the whole table; see ``ctr.api.RowState``."""
        del values
        self.state.apply([tf.math.unsorted_segment_sum(gradients, rows, self._n_rows)])

    def clear(self, rows: tf.Tensor) -> None:
        """Puts the slots of rows int32[N] back to 0."""
        for slot in self.state.slots[0]:
            zeros = tf.zeros([rows.shape[0], slot.shape[1]])
            slot.scatter_update(tf.IndexedSlices(zeros, rows))
