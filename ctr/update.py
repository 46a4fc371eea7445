"""How a batch changes the variables. An update returns nothing, so it cannot leak a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import tensorflow as tf

from ctr.api import Batch, Features, Forward, Model
from ctr.optimizers import Optimizers
from ctr.table import Table


class Trace(NamedTuple):
    """A recorded forward pass.

    Attributes:
        tape: Has watched the parts of ``features.rows`` and all trainable dense variables.
        batch: The batch as trained on (after the sampler).
        features: What the model saw.
        forward: What it returned.
        losses: float32[B], weighted per-example loss.
    """

    tape: tf.GradientTape
    batch: Batch
    features: Features
    forward: Forward
    losses: tf.Tensor


class Update(Protocol):
    """The frozen description of an update rule."""

    def build(self, model: Model, table: Table, optimizers: Optimizers) -> UpdateState:
        """Creates the optimizer slots; called after every dense variable exists."""
        ...


class UpdateState(Protocol):
    """A built update rule (a ``tf.Module``)."""

    def __call__(self, trace: Trace) -> None:
        """Changes the model's and the table's variables."""
        ...


@dataclass(frozen=True)
class GradientUpdate:
    """One gradient step per batch, the default.

    The table sees the gradient of the *summed* loss, one line per occurrence, so an id's step
    does not shrink with the batch size; dense variables see that of the mean, so their rates keep
    the usual meaning.
    """

    def build(self, model: tf.Module, table: Table, optimizers: Optimizers) -> GradientState:
        """Creates the optimizer slots."""
        return GradientState(model, table, optimizers)


class GradientState(tf.Module):
    """The built form of :class:`GradientUpdate`."""

    def __init__(self, model: tf.Module, table: Table, optimizers: Optimizers) -> None:
        super().__init__(name="gradient_update")
        wide = model.wide.trainable_variables if hasattr(model, "wide") else ()
        head = {variable.ref() for variable in wide}
        groups = (
            (optimizers.head, [v for v in model.trainable_variables if v.ref() in head]),
            (optimizers.tower, [v for v in model.trainable_variables if v.ref() not in head]),
        )
        self._groups = [(opt.build(vs), vs) for opt, vs in groups if vs]
        self.states = [state for state, _ in self._groups]
        self._table = table

    def __call__(self, trace: Trace) -> None:
        """Applies one step."""
        dense = [variable for _, variables in self._groups for variable in variables]
        # The gradient of a vector target is that of its sum.
        rows, gradients = trace.tape.gradient(
            trace.losses, (trace.features.rows, dense), unconnected_gradients="zero"
        )
        size = float(trace.losses.shape[0])
        at = 0
        for state, variables in self._groups:
            part = [g / size for g in gradients[at : at + len(variables)]]
            state.apply(part)
            at += len(variables)
        self._table.update(trace.features.ids, trace.features.rows, rows)
