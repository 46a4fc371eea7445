"""The update of a learner whose dense layers learn locally."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ctr.optimizers import Optimizers
from ctr.table import Table
from ctr.update import Trace
from research_modules.locoprop.local import LocalProblem, LocalRule, LocalState


@dataclass(frozen=True)
class LocoPropUpdate:
    """Local learning in the dense layers, one gradient step for everything else.

    Attributes:
        rule: Settings of the local problems.
    """

    rule: LocalRule = field(default_factory=LocalRule)

    def build(self, model: Any, table: Table, optimizers: Optimizers) -> LocoPropState:
        """Creates the optimizer slots."""
        return LocoPropState(self.rule, model, table, optimizers)


class LocoPropState(tf.Module):
    """The built form of :class:`LocoPropUpdate`."""

    def __init__(self, rule: LocalRule, model: Any, table: Table, optimizers: Optimizers) -> None:
        super().__init__(name="locoprop")
        layers = model.dense_layers
        local = [v for x in layers for v in ((x.kernel, x.bias) if x.use_bias else (x.kernel,))]
        wide = list(model.wide.trainable_variables)
        taken = {variable.ref() for variable in (*local, *wide)}
        rest = [v for v in model.trainable_variables if v.ref() not in taken]
        groups = ((optimizers.head, wide), (optimizers.tower, rest))
        self._groups = [(optimizer.build(vs), vs) for optimizer, vs in groups if vs]
        self.states = [state for state, _ in self._groups]
        self.local = LocalState(rule, optimizers.tower.build(local), local, len(layers))
        self._table = table

    def __call__(self, trace: Trace) -> None:
        """Learns one batch; everything else moves by the gradient at the old weights."""
        layers = trace.forward.layers
        rows, sums, errors = trace.tape.gradient(
            trace.losses,
            (
                trace.features.rows,
                [variables for _, variables in self._groups],
                [layer.preactivation for layer in layers],
            ),
            unconnected_gradients="zero",
        )
        problems = [
            LocalProblem(self.local.rule, layer, error, trace.batch.weights)
            for layer, error in zip(layers[:-1], errors[:-1], strict=True)
        ]
        output = layers[-1]
        # The wide part and the calibrator add to the logits; local learning takes them as given.
        beside = trace.forward.logits - output.preactivation
        problems.append(
            LocalProblem(self.local.rule, output, errors[-1], trace.batch.weights, beside)
        )
        size = float(trace.losses.shape[0])
        for (state, _), group in zip(self._groups, sums, strict=True):
            state.apply([gradient / size for gradient in group])
        self.local.learn(problems)
        self._table.update(trace.features.ids, trace.features.rows, rows)
