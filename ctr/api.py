"""The shapes that the parts of a learner hand to each other.

Any part of a recipe may have ``columns``, a tuple of names of side columns that a batch must carry
(``ctr.data.side`` knows where they come from), and ``whole_queries = True`` to ask for batches
that never cut a query.

``B`` examples, ``S`` id slots, ``F`` features, ``M`` numeric features, ``T`` tasks (labels),
``D`` embedding columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.data.examples import Block
from ctr.encoding import Layout

if TYPE_CHECKING:
    from ctr.table import Table


class Batch(NamedTuple):
    """One mini-batch, always of the recipe's fixed size; padding rows have weight 0.

    Attributes:
        ids: int32[B, S], rows of the fused table; 0 is the padding row of bags.
        numeric: float32[B, M], raw values; NaN means missing.
        labels: float32[B, T] in {0, 1}; -1 means unknown, such a label teaches nothing.
        weights: float32[B], importance; 0 marks padding.
        side: Further columns for losses and reports, those that the recipe's parts ask for by
            their ``columns``; never seen by a model.
        seen: int64 scalar, examples of the stream before this batch; what schedules follow.
    """

    ids: tf.Tensor
    numeric: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    side: Mapping[str, tf.Tensor]
    seen: tf.Tensor


class Rows(NamedTuple):
    """Table rows as looked up, one per id slot.

    Attributes:
        embedding: float32[B, S, D].
        wide: float32[B, S, T].
    """

    embedding: tf.Tensor
    wide: tf.Tensor


class Features(NamedTuple):
    """All that a model may see of an example.

    Attributes:
        vectors: float32[B, F, D], one pooled embedding per hashed feature.
        linear: float32[B, F, T], one pooled wide weight per hashed feature and task (or ``n_wide``
            of them, if the model asks for that many).
        numeric: float32[B, M], log-mapped, standardized; 0 where missing.
        ids: int32[B, S].
        rows: The table rows before pooling.
        seen: int64 scalar, examples learned before this batch.
    """

    vectors: tf.Tensor
    linear: tf.Tensor
    numeric: tf.Tensor
    ids: tf.Tensor
    rows: Rows
    seen: tf.Tensor


class DenseLayer(NamedTuple):
    """One dense layer in a forward pass, as a rule of local learning needs it.

    Attributes:
        kernel: Variable float32[I, O].
        bias: Variable float32[O], or None.
        activation: What the layer's preactivations go through; the sigmoid of the last layer is
            taken of the logits, to which other parts of the model add.
        inputs: float32[B, I].
        preactivation: float32[B, O], ``inputs @ kernel + bias``.
    """

    kernel: tf.Variable
    bias: tf.Variable | None
    activation: Callable[[tf.Tensor], tf.Tensor]
    inputs: tf.Tensor
    preactivation: tf.Tensor


class Forward(NamedTuple):
    """What a model returns.

    Attributes:
        logits: float32[B, T].
        aux: Named extras for losses and probes.
        layers: Dense layers in order, the output layer last; those of a model that is ``Layered``.
    """

    logits: tf.Tensor
    aux: Mapping[str, tf.Tensor]
    layers: tuple[DenseLayer, ...] = ()


@runtime_checkable
class Layered(Protocol):
    """What the description of a model offers whose forward pass lists its dense layers.

    The built model has ``dense_layers``, the Keras layers of ``Forward.layers`` in that order.
    """

    @property
    def layer_activation(self) -> str:
        """Activation of the hidden layers, a name of ``ctr.models.activations``."""
        ...


class Model(Protocol):
    """A built model; it owns its dense variables and never sees labels.

    ``dim`` is the number of embedding columns it wants in the table. It may have ``n_wide``, the
    number of wide columns, where that is not the number of tasks.
    """

    dim: int

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]:
        """The dense variables that updates move."""
        ...

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]."""
        ...


class ModelConfig(Protocol):
    """The frozen description of a model, as it stands in a recipe."""

    @property
    def dim(self) -> int:
        """Embedding columns the model wants in the fused table."""
        ...

    def build(self, layout: Layout, n_tasks: int, seed: int) -> Model:
        """Creates the variables; equal seeds give equal bits."""
        ...


class FeatureTransform(Protocol):
    """A traced change of the encoded features, hence exported with the model."""

    def extend(self, layout: Layout) -> Layout:
        """Returns the layout after the transform."""
        ...

    def __call__(self, ids: tf.Tensor, numeric: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the extended ``ids`` int32[B, S'] and ``numeric`` float32[B, M']."""
        ...


@runtime_checkable
class StatefulTransform(Protocol):
    """The frozen description of a feature transform that learns something of its own."""

    def extend(self, layout: Layout) -> Layout:
        """Returns the layout after the transform."""
        ...

    def build(self, layout: Layout, n_rows: int, dim: int, seed: int) -> TransformState:
        """Creates its variables.

        Args:
            layout: The layout before the transform.
            n_rows: Rows of the fused table.
            dim: Embedding columns of a row.
            seed: Decides initial values.
        """
        ...


class TransformState(Protocol):
    """A built feature transform (a ``tf.Module``), exported with the model."""

    def __call__(
        self, ids: tf.Tensor, numeric: tf.Tensor, table: Table
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the extended ``ids`` int32[B, S'] and ``numeric`` float32[B, M']."""
        ...

    def learn(self, batch: Batch, table: Table) -> None:
        """Changes its own variables, after the batch (as transformed) was learned."""
        ...


class Loss(Protocol):
    """A per-example loss."""

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns the unweighted loss, float32[B], in nats."""
        ...


@runtime_checkable
class StatefulLoss(Protocol):
    """The frozen description of a loss that learns something of its own."""

    def build(self, layout: Layout, n_tasks: int) -> LossState:
        """Creates its variables."""
        ...


class LossState(Protocol):
    """A built loss (a ``tf.Module``)."""

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns the unweighted loss, float32[B], in nats."""
        ...

    def learn(self, forward: Forward, batch: Batch) -> None:
        """Changes its own variables, after the batch was learned."""
        ...


class Sampler(Protocol):
    """Decides which examples are trained on, and by what their weights make up for the others.

    Whoever forms batches asks for ``factors`` and leaves out what is dropped, which saves all of
    its cost. What depends on the model's own prediction is decided in the graph, where a batch
    keeps its shape and a dropped example gets weight 0.
    """

    @property
    def drops(self) -> bool:
        """True if ``factors`` has to be asked."""
        ...

    def factors(self, rows: Block) -> NDArray[np.float32]:
        """Returns float32[n], what each row's weight is multiplied by; 0 drops the row.

        ``rows`` come as read, with their ``side`` columns but before encoding: without ids.
        """
        ...

    def __call__(self, batch: Batch, logits: tf.Tensor) -> Batch:
        """Returns the batch with corrected weights; ``logits`` float32[B, T] are those served."""
        ...


class DenseOptimizer(Protocol):
    """Updates a model's dense variables."""

    def build(self, variables: Sequence[tf.Variable]) -> DenseState:
        """Creates the slot variables for ``variables``."""
        ...


class DenseState(Protocol):
    """The slots of a dense optimizer (a ``tf.Module``, so that checkpoints cover them)."""

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Assigns new values to the variables given at build time."""
        ...


class RowOptimizer(Protocol):
    """Updates the table rows that a batch touched; settings only, the state is built."""

    def build(self, weights: tf.Variable, n_inputs: int) -> RowState:
        """Creates the slots for ``weights`` float32[R, C]; examples have ``n_inputs`` features."""
        ...


class RowState(Protocol):
    """The slots of a row optimizer (a ``tf.Module``)."""

    def apply(self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor) -> None:
        """Moves the weights.

        Args:
            rows: int32[N], duplicates allowed.
            values: float32[N, C], the weights of these rows before the batch.
            gradients: float32[N, C], of the summed loss, one line per occurrence.
        """
        ...

    def clear(self, rows: tf.Tensor) -> None:
        """Puts the slots of rows int32[N] back to their start, for weights that became 0."""
        ...


class Calibrator(Protocol):
    """The frozen description of a calibrator."""

    def build(self, layout: Layout, slices: Sequence[str], n_tasks: int) -> CalibratorState:
        """Creates its variables."""
        ...


class CalibratorState(Protocol):
    """Maps logits to calibrated logits and learns after having predicted."""

    def __call__(self, logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Returns calibrated logits float32[B, T]."""
        ...

    def learn(self, logits: tf.Tensor, batch: Batch) -> None:
        """Updates from labels; ``logits`` are those before calibration."""
        ...


class Probe(Protocol):
    """Watches training and changes nothing."""

    def observe(self, forward: Forward, batch: Batch) -> None:
        """Adds one batch, seen before its update."""
        ...

    def report(self) -> Mapping[str, object]:
        """Returns numbers or arrays for the run's report."""
        ...


@runtime_checkable
class HostWork(Protocol):
    """What any state (a ``tf.Module`` of the learner) may offer that works beside the graph."""

    def between_launches(self) -> None:
        """Reads and assigns variables after each compiled launch, before the next one.

        What it does may depend on the learner's variables alone, never on the time something
        took: a resumed run must do the same at the same place of the stream.
        """
        ...


@runtime_checkable
class Reporting(Protocol):
    """What any state (a ``tf.Module`` of the learner) may offer that has something to tell."""

    def report(self) -> Mapping[str, object]:
        """Returns plain data for the run's report, beside those of the probes."""
        ...
