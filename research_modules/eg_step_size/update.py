"""The update of a learner whose steps are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tensorflow as tf

from ctr.api import Rows
from ctr.errors import ConfigError
from ctr.optimizers import Optimizers
from ctr.table import Table
from ctr.update import GradientState, Trace
from research_modules.eg_step_size.scale import EgScale, ScaleState

SCOPES = ("group", "global")


@dataclass(frozen=True)
class EgUpdate:
    """One gradient step per batch, times a learned scale.

    Attributes:
        scale: The rules.
        scope: ``group`` or ``global``.
        tables: True scales the table's steps as well.
    """

    scale: EgScale = field(default_factory=EgScale)
    scope: str = "group"
    tables: bool = True

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ConfigError(
                f"eg_step_size: scope must be group or global, received {self.scope!r}."
            )

    def build(self, model: tf.Module, table: Table, optimizers: Optimizers) -> EgState:
        """Creates the slots of the optimizers and of the scales."""
        return EgState(self, model, table, optimizers)


class EgState(GradientState):
    """The built form of :class:`EgUpdate`."""

    def __init__(
        self, config: EgUpdate, model: tf.Module, table: Table, optimizers: Optimizers
    ) -> None:
        super().__init__(model, table, optimizers)
        self._tables = config.tables
        groups = self.variables_moved
        if config.scope == "global":
            groups = [[variable for group in groups for variable in group]]
        self.scales = [ScaleState(config.scale, group) for group in groups]

    def apply(self, trace: Trace, rows: Rows, gradients: Sequence[Sequence[tf.Tensor]]) -> None:
        """Moves all variables, the table by the scale that the dense variables have found."""
        if len(self.scales) == len(self.states):
            found = [
                scale.step(group, state.apply)
                for scale, state, group in zip(self.scales, self.states, gradients, strict=True)
            ]
        else:
            flat = [gradient for group in gradients for gradient in group]
            found = [self.scales[0].step(flat, self._move)]
        trace_rows, ids = trace.features.rows, trace.features.ids
        self.table.update(ids, trace_rows, rows)
        if self._tables:
            # The wide columns go with the wide part, which is the first group.
            self._rescale(ids, trace_rows, Rows(embedding=found[-1], wide=found[0]))

    def _move(self, flat: Sequence[tf.Tensor]) -> None:
        at = 0
        for state, variables in zip(self.states, self.variables_moved, strict=True):
            state.apply(flat[at : at + len(variables)])
            at += len(variables)

    def _rescale(self, ids: tf.Tensor, before: Rows, scales: Rows) -> None:
        """Stretches the steps that rows have just made, whatever row optimizer made them."""
        flat = tf.reshape(ids, [-1])
        for weights, old, scale in zip(
            (self.table.embedding, self.table.wide), before, scales, strict=True
        ):
            if not weights.shape[1]:
                continue
            old = tf.reshape(old, [-1, weights.shape[1]])
            new = tf.gather(weights, flat)
            # An id that stands twice writes the same value twice.
            moved = new + (1.0 - scale) * (old - new)
            weights.scatter_update(tf.IndexedSlices(moved, flat))
