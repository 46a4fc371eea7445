"""The pair of models, the distance between them, and the extra updates on views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ctr.api import Batch, Features, Forward, Loss, Model, Rows
from ctr.encoding import Layout
from ctr.errors import ModuleError
from ctr.inputs import features as assemble
from ctr.losses import LogLoss
from ctr.models.with_teacher import WithTeacher, WithTeacherModel
from ctr.optimizers import Optimizers
from ctr.table import Table
from ctr.update import Trace, Update, UpdateState
from research_modules.patient_distillation.views import field_groups, mask, mixup, recombine

#: What the teacher sees of an extra view.
CONSISTENCY = ("same", "fixed", "independent")


def distance(student: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns ``t**2 KL(sigma(z_T / t) || sigma(z_S / t))`` summed over tasks, float32[B].

    The factor keeps the gradient's size when t changes: it is ``t (p_S - p_T)``.

    Args:
        student: float32[B, T], logits.
        teacher: float32[B, T], logits; a constant.
        temperature: t.
    """
    z, target = student / temperature, tf.stop_gradient(teacher) / temperature
    p = tf.sigmoid(target)
    # From logits throughout, so that a saturated teacher stays finite.
    gap = p * (tf.math.log_sigmoid(target) - tf.math.log_sigmoid(z))
    gap += (1.0 - p) * (tf.math.log_sigmoid(-target) - tf.math.log_sigmoid(-z))
    return temperature**2 * tf.reduce_sum(gap, axis=1)


@dataclass(frozen=True)
class MatchedPair(WithTeacher):
    """A student and the teacher whose function it matches."""

    def build(self, layout: Layout, n_tasks: int, seed: int) -> MatchedModel:
        """Creates the variables; equal seeds give equal bits."""
        return MatchedModel(self, layout, n_tasks, seed)


class MatchedModel(WithTeacherModel):
    """The built form of :class:`MatchedPair`."""

    def __init__(self, config: MatchedPair, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(config, layout, n_tasks, seed)
        self.layout, self.seed = layout, seed

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns the student's logits; ``aux`` holds those of both, before calibration."""
        forward = super().__call__(features, training)
        return forward._replace(aux={**forward.aux, "student": forward.logits})


@dataclass(frozen=True)
class MatchingLoss:
    """The teacher's loss on labels, and the student's distance to it on the same impression.

    Attributes:
        strength: Weight of the distance.
        labels: Weight of labels in the student's loss; 0 is function matching.
        temperature: Of the distance.
        start: Examples of the stream before the student begins.
        base: The loss on labels.
    """

    strength: float
    labels: float
    temperature: float
    start: int
    base: Loss = field(default_factory=LogLoss)

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B].

        Raises:
            ModuleError: another module has taken the teacher away.
        """
        if "student" not in forward.aux:
            raise ModuleError(_LATER)
        teacher = forward.aux["teacher"]
        own = self.strength * distance(forward.aux["student"], teacher, self.temperature)
        if self.labels:
            own += self.labels * self.base(forward, batch)
        begun = tf.cast(batch.seen >= self.start, tf.float32)
        return self.base(forward._replace(logits=teacher), batch) + begun * own


_LATER = (
    "patient_distillation: another module has wrapped the model since. Put patient_distillation "
    "after the modules that change the model."
)


@dataclass(frozen=True)
class PatientUpdate:
    """An update rule, and after each batch further updates of the student on views of rows seen.

    Attributes:
        base: The update rule; the student's extra steps follow it with slots of their own.
        reps: Extra updates per batch.
        view: What is done to the rows, see ``views``.
        consistency: What the teacher sees: the ``same`` view, the row as it was (``fixed``), or
            an ``independent`` view of it.
        hidden: Share of fields that a mask hides.
        buffer: Newest rows that views are made of; at least a batch is kept.
        groups: Fields that stay together when rows are recombined.
        strength: Weight of the distance.
        temperature: Of the distance.
        start: Examples of the stream before the student begins.
    """

    base: Update
    reps: int
    view: str
    consistency: str
    hidden: float
    buffer: int
    groups: tuple[tuple[str, ...], ...]
    strength: float
    temperature: float
    start: int

    def build(self, model: Model, table: Table, optimizers: Optimizers) -> PatientState:
        """Creates the optimizer slots and the buffer.

        Raises:
            ModuleError: the model is no longer the pair, or no field can be recombined.
        """
        if not isinstance(model, MatchedModel):
            raise ModuleError(_LATER)
        base = self.base.build(model, table, optimizers)
        # Slots of their own: the teacher must not move by momentum when only the student learns.
        extra = self.base.build(model.student, table, optimizers)
        return PatientState(self, model, table, base, extra)


class PatientState(tf.Module):
    """The built form of :class:`PatientUpdate`."""

    def __init__(
        self,
        config: PatientUpdate,
        model: MatchedModel,
        table: Table,
        base: UpdateState,
        extra: UpdateState,
    ) -> None:
        super().__init__(name="patient_update")
        self._config, self._model, self._table = config, model, table
        self.base, self.extra = base, extra
        layout = model.layout
        recombined = config.view == "recombine"
        self._groups = field_groups(layout, config.groups) if recombined else []
        # The last row takes what is not kept, and stays 0.
        size = config.buffer + 1
        self.ids = tf.Variable(
            tf.zeros([size, layout.n_slots], tf.int32), trainable=False, name="ids"
        )
        self.numeric = tf.Variable(
            tf.zeros([size, len(layout.numeric)]), trainable=False, name="numeric"
        )
        self.seen = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="seen")

    def __call__(self, trace: Trace) -> None:
        """Applies the update, then the student's extra ones."""
        self.base(trace)
        kept = trace.batch.weights > 0.0
        self._remember(trace, kept)
        # Rows are predicted and scored before they can be in a view.
        begun = tf.reduce_any(kept) & (trace.features.seen >= self._config.start)
        n = tf.where(begun, self._config.reps, 0)

        def step(rep: tf.Tensor) -> Sequence[tf.Tensor]:
            self._step(trace, rep)
            return [rep + 1]

        tf.while_loop(lambda rep: rep < n, step, [tf.zeros([], tf.int32)])

    def _remember(self, trace: Trace, kept: tf.Tensor) -> None:
        size = self._config.buffer
        order = tf.cast(tf.cumsum(tf.cast(kept, tf.int32)), tf.int64)
        rows = tf.where(kept, (self.seen + order - 1) % size, size)
        for store, values in (
            (self.ids, trace.features.ids), (self.numeric, trace.features.numeric),
        ):  # fmt: skip
            clean = tf.where(kept[:, None], values, tf.zeros([], values.dtype))
            store.scatter_update(tf.IndexedSlices(clean, rows))
        self.seen.assign_add(order[-1])

    def _step(self, trace: Trace, rep: tf.Tensor) -> None:
        config, seen = self._config, trace.features.seen
        n = trace.losses.shape[0]
        # Keyed by the place in the stream, so that a resumed run draws the same views.
        place = tf.cast(seen, tf.int32) * (2 * config.reps) + 2 * rep
        count = tf.cast(tf.minimum(self.seen, config.buffer), tf.float32)
        # Philox throughout: XLA's own choice of generator takes eight times as long on CPUs.
        key = [self._model.seed + 1, place]
        drawn = tf.random.stateless_uniform([n], key, alg="philox")
        # Rounding may reach the bound itself.
        at = tf.minimum(tf.cast(drawn * count, tf.int32), tf.cast(count, tf.int32) - 1)
        ids, numeric = tf.gather(self.ids, at), tf.gather(self.numeric, at)
        own_ids, own_numeric = self._drawn(ids, numeric, place)

        def student(rows: Rows) -> tuple[Features, Forward]:
            inputs = self._view(own_ids, rows, own_numeric, place, seen)
            own, _ = self._model.shares(inputs)
            return inputs, self._model.student(own, True)

        rows = self._table.lookup(own_ids)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            inputs, forward = student(rows)
            # Nothing is drawn twice: with consistency, the teacher is given what the student was.
            shown = inputs
            if config.consistency != "same":
                other = place + 1 if config.consistency == "independent" else None
                shown = self._look_up(ids, numeric, other, seen)
            _, rest = self._model.shares(shown)
            teacher = self._model.teacher(rest, False).logits
            losses = config.strength * distance(forward.logits, teacher, config.temperature)
        batch = trace.batch._replace(ids=inputs.ids, weights=tf.ones([n]))
        self.extra(Trace(tape, batch, inputs, forward, losses, lambda rows: student(rows)[1]))

    def _drawn(self, ids: tf.Tensor, numeric: tf.Tensor, place: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns rows after what a view does to ids; as they are where ``place`` is None."""
        if place is None or self._config.view != "recombine":
            return ids, numeric
        key = [self._model.seed + 2, place]
        shape = [len(self._groups)]
        shifts = tf.random.stateless_uniform(shape, key, 0, ids.shape[0], dtype=tf.int32)
        return recombine(ids, numeric, self._groups, shifts)

    def _view(
        self, ids: tf.Tensor, rows: Rows, numeric: tf.Tensor, place: Any, seen: tf.Tensor
    ) -> Features:
        """Returns looked-up rows after what a view does to them, by the same draw."""
        config = self._config
        inputs = assemble(self._model.layout, ids, rows, numeric, seen)
        view = "none" if place is None else config.view
        key = [self._model.seed + 2, place]
        if view == "mask":
            shape = [ids.shape[0], inputs.vectors.shape[1] + numeric.shape[1]]
            drawn = tf.random.stateless_uniform(shape, key, alg="philox")
            keep = drawn >= config.hidden
            return mask(inputs, tf.cast(keep, tf.float32))
        if view == "mixup":
            return mixup(inputs, tf.random.stateless_uniform([], key))
        return inputs

    def _look_up(self, ids: tf.Tensor, numeric: tf.Tensor, place: Any, seen: tf.Tensor) -> Features:
        ids, numeric = self._drawn(ids, numeric, place)
        return self._view(ids, self._table.lookup(ids), numeric, place, seen)
