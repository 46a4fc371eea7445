"""How a batch changes the variables. An update returns nothing, so it cannot leak a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import tensorflow as tf

from ctr.api import Batch, Features, Forward, Model, Rows
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
        again: Repeats the forward pass, calibration included, from other table rows and from the
            dense variables as they then are; for updates that look ahead. A learner gives it;
            None in a trace that something else has recorded.
    """

    tape: tf.GradientTape
    batch: Batch
    features: Features
    forward: Forward
    losses: tf.Tensor
    again: Callable[[Rows], Forward] | None = None


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
        self.table = table

    def __call__(self, trace: Trace) -> None:
        """Applies one step."""
        rows, gradients = self.gradients(trace)
        self.apply(trace, rows, gradients)

    @property
    def variables_moved(self) -> list[list[tf.Variable]]:
        """The dense variables, one list per optimizer: those of the wide part, then the others."""
        return [variables for _, variables in self._groups]

    def gradients(self, trace: Trace) -> tuple[Rows, list[list[tf.Tensor]]]:
        """Returns the gradients of one batch.

        Returns:
            Those of the summed loss with respect to the looked-up rows, and those of the mean loss
            with respect to ``variables_moved``, in the same lists.
        """
        # The gradient of a vector target is that of its sum.
        rows, sums = trace.tape.gradient(
            trace.losses, (trace.features.rows, self.variables_moved), unconnected_gradients="zero"
        )
        size = float(trace.losses.shape[0])
        return rows, [[g / size for g in group] for group in sums]

    def apply(self, trace: Trace, rows: Rows, gradients: Sequence[Sequence[tf.Tensor]]) -> None:
        """Moves all variables by the gradients that :meth:`gradients` returns."""
        for (state, _), group in zip(self._groups, gradients, strict=True):
            state.apply(group)
        self.table.update(trace.features.ids, trace.features.rows, rows)
