"""How a step for one label changes the loss of another, measured beside ordinary training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.errors import ConfigError, ModuleError
from ctr.module import ModuleInfo
from ctr.optimizers import Optimizers
from ctr.recipe import Recipe
from ctr.table import Table
from ctr.update import GradientUpdate, Trace, Update, UpdateState

#: Parts of the window whose sums are kept apart, for a bootstrap over time.
BLOCKS = 20


class Lookahead(NamedTuple):
    """What one step per task would do.

    Attributes:
        before: float32[T], losses as they are.
        after: float32[T, T], loss of task j after a step of the shared parameters for task i.
        gradients: Per task, the gradient with respect to each shared parameter.
    """

    before: tf.Tensor
    after: tf.Tensor
    gradients: list[list[tf.Tensor]]


def lookahead(
    losses: Callable[[Sequence[Any]], tf.Tensor], shared: Sequence[Any], rate: float
) -> Lookahead:
    """Steps the shared parameters for each task in turn and evaluates every task's loss.

    Args:
        losses: The losses float32[T] of all tasks from values of the shared parameters.
        shared: Tensors or variables; variables are handed to ``losses`` as they are first.
        rate: Step size.
    """
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([value for value in shared if not isinstance(value, tf.Variable)])
        before = losses(shared)
        each = tf.unstack(before)
    after, gradients = [], []
    for loss in each:
        found = tape.gradient(loss, list(shared), unconnected_gradients="zero")
        gradient = [tf.convert_to_tensor(part) for part in found]
        after.append(losses([x - rate * g for x, g in zip(shared, gradient, strict=True)]))
        gradients.append(gradient)
    return Lookahead(before, tf.stack(after), gradients)


def affinity(step: Lookahead) -> tf.Tensor:
    """Returns ``Z[i, j] = 1 - L_j(after a step for i) / L_j``, float32[T, T]."""
    return 1.0 - step.after / step.before[None]


def unique_rows(ids: tf.Tensor) -> tf.Tensor:
    """Returns int32[N] places such that equal ids, and no others, share a place.

    A row that stands several times in a batch is one parameter: its steps have to add up.
    """
    order = tf.argsort(ids, stable=True)
    ordered = tf.gather(ids, order)
    new = tf.concat([[0], tf.cast(ordered[1:] != ordered[:-1], tf.int32)], axis=0)
    places = tf.cumsum(new)
    return tf.scatter_nd(order[:, None], places, tf.shape(ids))


@dataclass(frozen=True)
class MeasuredUpdate:
    """An update that measures task affinities first and changes nothing else.

    Attributes:
        tasks: Number of labels, T.
        every: Batches between two measurements, n.
        rate: Step size of the lookahead, on the gradient of the mean loss.
        first: Examples before the window.
        examples: Length of the window.
        least: Known positives and negatives that a label needs in a batch to count.
        base: The update that follows.
    """

    tasks: int
    every: int
    rate: float
    first: int
    examples: int
    least: int
    base: Update = field(default_factory=GradientUpdate)

    def build(self, model: tf.Module, table: Table, optimizers: Optimizers) -> MeasuredState:
        """Creates the sums and the base's slots."""
        return MeasuredState(self, model, self.base.build(model, table, optimizers))


class MeasuredState(tf.Module):
    """The built form of :class:`MeasuredUpdate`."""

    def __init__(self, config: MeasuredUpdate, model: tf.Module, base: UpdateState) -> None:
        super().__init__(name="task_affinity")
        self._config, self.base = config, base
        # A head belongs to one task; a step of it would only change that task's own loss.
        heads = [part for name in ("wide", "head") if (part := getattr(model, name, None))]
        own = {v.ref() for part in heads for v in part.trainable_variables}
        self._trunk = [v for v in model.trainable_variables if v.ref() not in own]
        square = [BLOCKS, config.tasks, config.tasks]

        def sums(name: str, shape: list[int]) -> tf.Variable:
            return tf.Variable(tf.zeros(shape), name=name)

        self.ratio, self.count, self.cosine = (
            sums(name, square) for name in ("ratio", "count", "cosine")
        )
        self.after, self.before = sums("after", square), sums("before", square)
        self.norm = sums("norm", [config.tasks])
        self.measured = sums("measured", [])
        self.steps = tf.Variable(tf.zeros([], tf.int64), name="steps")

    def __call__(self, trace: Trace) -> None:
        """Measures, if it is time, and lets the base update learn."""
        config, batch = self._config, trace.batch
        if batch.labels.shape[1] != config.tasks:
            raise ModuleError(
                f"task_affinity: tasks = {config.tasks}, but {batch.labels.shape[1]} labels are "
                "learned. Set tasks to the number of labels of the experiment or run."
            )
        live = tf.reduce_any(batch.weights > 0.0)
        inside = (batch.seen >= config.first) & (batch.seen < config.first + config.examples)
        due = live & inside & (self.steps % config.every == 0)
        tf.cond(due, lambda: self._measure(trace), lambda: None)
        self.steps.assign_add(tf.cast(live, tf.int64))
        self.base(trace)

    def report(self) -> dict[str, object]:
        """Returns the matrices, ``[i, j]`` = effect of a step for i on j, and what they rest on.

        ``ratio`` and ``count`` float[20, T, T] are the sums by part of the window; their quotient
        is the affinity. ``pooled`` is ``1 - sum L' / sum L``, which rare labels cannot upset.
        """
        ratio, count, after, before, cosine = (
            v.numpy().astype(float)
            for v in (self.ratio, self.count, self.after, self.before, self.cosine)
        )
        measured = float(self.measured.numpy())
        return {
            "affinity": mean_affinity(ratio, count).tolist(),
            "pooled": (1.0 - _quotient(after.sum(0), before.sum(0))).tolist(),
            "cosine": mean_affinity(cosine, count).tolist(),
            "gradient_norm": (self.norm.numpy() / max(measured, 1.0)).tolist(),
            "skipped": (1.0 - np.diag(count.sum(0)) / max(measured, 1.0)).tolist(),
            "measurements": measured,
            "ratio": ratio.tolist(),
            "count": count.tolist(),
        }

    def _measure(self, trace: Trace) -> None:
        config, batch, rows = self._config, trace.batch, trace.features.rows
        again = trace.again
        assert again is not None  # only a pass of the learner's own can be repeated
        flat = tf.reshape(rows.embedding, [-1, rows.embedding.shape[-1]])
        place = unique_rows(tf.reshape(trace.features.ids, [-1]))
        # Equal rows hold equal values, so it does not matter which of them is written last.
        unique = tf.tensor_scatter_nd_update(tf.zeros_like(flat), place[:, None], flat)
        kept = [v.read_value() for v in self._trunk]

        def losses(shared: Sequence[Any]) -> tf.Tensor:
            for variable, value in zip(self._trunk, shared[1:], strict=True):
                if value is not variable:
                    variable.assign(value)
            looked_up = tf.reshape(tf.gather(shared[0], place), rows.embedding.shape)
            forward = again(rows._replace(embedding=looked_up))
            return task_losses(forward.logits, batch.labels, batch.weights)

        step = lookahead(losses, [unique, *self._trunk], config.rate)
        for variable, value in zip(self._trunk, kept, strict=True):
            variable.assign(value)
        enough = _enough(batch.labels, batch.weights, config.least)
        both = tf.cast(enough[:, None] & enough[None], tf.float32)
        # 0 times an undefined ratio would be undefined.
        safe = step._replace(before=tf.where(enough, step.before, 1.0))
        self._add(self.ratio, both * affinity(safe), batch.seen)
        self._add(self.count, both, batch.seen)
        self._add(self.after, both * step.after, batch.seen)
        self._add(self.before, both * step.before[None], batch.seen)
        products = _products(step.gradients)
        norms = tf.sqrt(tf.linalg.diag_part(products))
        angles = products / tf.maximum(norms[:, None] * norms[None], 1e-30)
        self._add(self.cosine, both * angles, batch.seen)
        self.norm.assign_add(norms)
        self.measured.assign_add(1.0)

    def _add(self, sums: tf.Variable, value: tf.Tensor, seen: tf.Tensor) -> None:
        block = (seen - self._config.first) * BLOCKS // self._config.examples
        sums.scatter_add(tf.IndexedSlices(value[None], block[None]))


def task_losses(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns each task's mean log loss over its own known labels, float32[T]; 0 without any."""
    known = tf.cast(labels >= 0.0, tf.float32) * weights[:, None]
    loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(labels, 0.0), logits)
    return tf.math.divide_no_nan(tf.reduce_sum(known * loss, 0), tf.reduce_sum(known, 0))


def mean_affinity(sums: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean over all parts of a window, float64[T, T]; 0 where nothing was measured."""
    return _quotient(sums.sum(axis=0), count.sum(axis=0))


def _quotient(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _enough(labels: tf.Tensor, weights: tf.Tensor, least: int) -> tf.Tensor:
    live = (weights > 0.0)[:, None]
    positive = tf.math.count_nonzero(live & (labels > 0.5), axis=0)
    negative = tf.math.count_nonzero(live & (labels >= 0.0) & (labels <= 0.5), axis=0)
    return (positive >= least) & (negative >= least)


def _products(gradients: list[list[tf.Tensor]]) -> tf.Tensor:
    stacked = [tf.stack([tf.reshape(g, [-1]) for g in parts]) for parts in zip(*gradients)]  # noqa: B905
    return tf.add_n([tf.matmul(part, part, transpose_b=True) for part in stacked])


@dataclass(frozen=True)
class TaskAffinity:
    """Measures inter-task affinities during one training of all labels together.

    Every ``every`` batches each label in turn steps the shared parameters (table embeddings and
    all dense variables that are no head), the losses of all labels are taken again on the same
    batch, and everything is put back. The matrix is in the report of a replay;
    ``research_modules.task_grouping.selection`` turns it into groups.

    Paper: Fifty et al. 2021, "Efficiently identifying task groupings for multi-task learning"
        (arXiv:2109.04617), section 3, equations 1 and 2.
    Deviations: the step is plain gradient descent on the mean loss whatever optimizer learns;
        a batch in which a label has fewer than ``least`` positives or negatives is left out for
        that label; the affinity is not divided by the rate.
    Reduces to: the update without it, bit for bit; as ``rate`` goes to 0, ``affinity / rate`` is
        the inner product of two labels' gradients over the loss of the second.

    Attributes:
        tasks: Number of labels that are learned.
        every: Batches between two measurements.
        rate: Step size of the lookahead; keep affinities below about 0.01.
        first: Examples before the window that is measured.
        examples: Length of that window.
        least: Positives and negatives that a label needs in a batch.
    """

    tasks: int = 2
    every: int = 10
    rate: float = 0.3
    first: int = 5_000
    examples: int = 50_000
    least: int = 1

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="task_affinity",
        paper="Efficiently identifying task groupings (arXiv:2109.04617), section 3",
        extends=frozenset({"update"}),
    )

    def __post_init__(self) -> None:
        if self.tasks < 2:
            raise ConfigError(
                f"task_affinity compares labels: tasks must be at least 2, received {self.tasks}."
            )
        if min(self.every, self.examples, self.least) < 1 or self.first < 0:
            raise ConfigError(
                "task_affinity: every, examples and least must be at least 1 and first at least "
                f"0, received {self.every}, {self.examples}, {self.least} and {self.first}."
            )
        if not self.rate > 0.0:
            raise ConfigError(f"task_affinity: rate must be above 0, received {self.rate}.")

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with its update measured."""
        update = MeasuredUpdate(
            self.tasks, self.every, self.rate, self.first, self.examples, self.least, recipe.update
        )
        return replace(recipe, update=update)
