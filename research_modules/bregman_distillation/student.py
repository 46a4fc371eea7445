"""A student that predicts a teacher layer's coefficients, with the layer and head it is served by.

The fixed part (mean, components, the teacher's head) is one versioned whole: it changes between
launches only, all at once, and the student's coefficients are carried over into the new
coordinates when it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from ctr.api import Features, Forward, Model
from ctr.encoding import Layout
from ctr.errors import ModuleError
from ctr.models import WithTeacher
from ctr.models.activations import LEAK, activation
from ctr.optimizers import Optimizers
from ctr.table import Table
from ctr.update import Trace, Update, UpdateState
from research_modules.bregman_distillation.geometry import TRANSFERS
from research_modules.bregman_distillation.pca import BregmanPca, fit

#: Said where the pair of models is no longer the recipe's model.
LATER = (
    "bregman_distillation: another module has wrapped the model since. Put bregman_distillation "
    "after the modules that change the model; another distillation cannot stand beside it."
)


@dataclass(frozen=True)
class BregmanPair:
    """A student and a teacher whose last hidden layer it learns in compressed form.

    Attributes:
        student: What is served up to its last hidden layer, a ``Deep``.
        teacher: The teacher, a ``Deep``.
        k: Coefficients.
    """

    student: Any
    teacher: Any
    k: int

    @property
    def dim(self) -> int:
        """Embedding columns of both."""
        return self.student.dim + self.teacher.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> BregmanModel:
        """Creates the variables; equal seeds give equal bits."""
        return BregmanModel(self, layout, n_tasks, seed)


class FixedLayer(tf.Module):
    """``logits = head(f(c V' + m))``; nothing in it is trained.

    Args:
        transfer: Name of f.
        d: Units of the layer.
        k: Coefficients.
        n_tasks: Number of labels.
    """

    def __init__(self, transfer: str, d: int, k: int, n_tasks: int) -> None:
        super().__init__(name="fixed_layer")
        self._f = activation(transfer, 1.0)
        self._transfer = transfer

        def frozen(name: str, *shape: int) -> tf.Variable:
            return tf.Variable(tf.zeros(shape), trainable=False, name=name)

        self.components, self.mean = frozen("components", d, k), frozen("mean", d)
        self.kernel = frozen("kernel", d, n_tasks)
        self.unit = tf.Variable(1.0, trainable=False, name="unit")
        self.version = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="version")

    def logits(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Returns float32[B, T] for coefficients float32[B, k]."""
        return tf.matmul(self._f(self._pre(coefficients)), self.kernel)

    def divergence(self, coefficients: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Returns the Bregman divergence to the teacher's outputs, float32[B].

        In units of what the mean alone leaves unexplained, so 1 is knowing nothing; 0 before the
        first fit.

        Args:
            coefficients: float32[B, k].
            x: float32[B, d], outputs of the teacher's layer.
        """
        a = self._pre(coefficients)
        value = tf.reduce_sum(_POTENTIALS[self._transfer](a, x) - a * x, axis=1) / self.unit
        return tf.where(self.version > 0, value, 0.0)

    def _pre(self, coefficients: tf.Tensor) -> tf.Tensor:
        return tf.matmul(coefficients, self.components, transpose_b=True) + self.mean

    def assign(self, fitted: BregmanPca, kernel: tf.Tensor) -> None:
        """Takes over a fit and the head that goes with it, as one new version."""
        self.components.assign(fitted.components.astype(np.float32))
        self.mean.assign(fitted.mean.astype(np.float32))
        self.kernel.assign(kernel)
        self.unit.assign(max(fitted.without, 1e-6))
        self.version.assign_add(1)


def _leaky_potentials(a: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    inverse = tf.where(x > 0.0, x, x / LEAK)
    return 0.5 * (a * tf.nn.leaky_relu(a, LEAK) + x * inverse)


def _tanh_potentials(a: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    x = tf.clip_by_value(x, -1.0 + 1e-6, 1.0 - 1e-6)
    own = tf.abs(a) + tf.math.log1p(tf.exp(-2.0 * tf.abs(a))) - float(np.log(2))
    return own + 0.5 * ((1.0 + x) * tf.math.log1p(x) + (1.0 - x) * tf.math.log1p(-x))


#: ``F(a) + F*(x)`` per unit.
_POTENTIALS = {"leaky_relu": _leaky_potentials, "tanh": _tanh_potentials}
#: Transfer functions a teacher's layer may have: strictly monotone, with a known potential.
LAYERS = tuple(_POTENTIALS)


class BregmanModel(tf.Module):
    """The built form of :class:`BregmanPair`."""

    def __init__(self, config: BregmanPair, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="bregman_pair")
        self.pair = WithTeacher(config.student, config.teacher).build(layout, n_tasks, seed)
        self.dim, self.n_wide, self.wide = self.pair.dim, self.pair.n_wide, self.pair.wide
        self.coefficients = tf_keras.layers.Dense(
            config.k, kernel_initializer=tf_keras.initializers.GlorotNormal(seed * 1000 + 950)
        )
        width = config.teacher.hidden[-1]
        self.fixed = FixedLayer(config.teacher.activation, width, config.k, n_tasks)

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns the student's logits float32[B, T].

        ``aux`` holds the teacher's logits as ``teacher``, its last layer as ``teacher_hidden``,
        and the student's ``divergence`` from that.
        """
        own, rest = self.pair.shares(features)
        hidden = self.pair.student(own, training).aux["hidden"]
        teacher = self.pair.teacher(rest, training)
        # The teacher learns from labels only, and must not come to meet the student.
        x = tf.stop_gradient(teacher.aux["hidden"])
        c = self.coefficients(hidden)
        student: Any = self.pair.student
        logits = student.wide(own) + self.fixed.logits(c)
        aux = {
            "teacher": teacher.logits,
            "teacher_hidden": x,
            "divergence": self.fixed.divergence(c, x),
        }
        return Forward(logits, aux)


@dataclass(frozen=True)
class RefittingUpdate:
    """An update rule, beside which the fixed layer is fitted again and again.

    Attributes:
        base: The update rule.
        every: Examples between two fits; a fit happens at the end of the launch that reaches it.
        sample: Newest outputs of the teacher's layer that a fit goes by.
        sweeps: Most alternations of a fit.
    """

    base: Update
    every: int
    sample: int
    sweeps: int

    def build(self, model: Model, table: Table, optimizers: Optimizers) -> RefittingState:
        """Creates the optimizer slots and the sample.

        Raises:
            ModuleError: another module has wrapped the pair.
        """
        if not isinstance(model, BregmanModel):
            raise ModuleError(LATER)
        return RefittingState(self, model, self.base.build(model, table, optimizers))


class RefittingState(tf.Module):
    """The built form of :class:`RefittingUpdate`."""

    def __init__(self, config: RefittingUpdate, model: Any, base: UpdateState) -> None:
        super().__init__(name="refitting_update")
        self._config, self._model, self.base = config, model, base
        width = model.fixed.mean.shape[0]
        # The last row takes what is not kept, and stays 0.
        self.sample = tf.Variable(
            tf.zeros([config.sample + 1, width]), trainable=False, name="sample"
        )
        self.seen = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="seen")
        self.fitted = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="fitted_at")

    def __call__(self, trace: Trace) -> None:
        """Applies the update and keeps the teacher's outputs."""
        self.base(trace)
        size = self._config.sample
        kept = trace.batch.weights > 0.0
        order = tf.cast(tf.cumsum(tf.cast(kept, tf.int32)), tf.int64)
        rows = tf.where(kept, (self.seen + order - 1) % size, size)
        x = tf.where(kept[:, None], trace.forward.aux["teacher_hidden"], 0.0)
        self.sample.scatter_update(tf.IndexedSlices(x, rows))
        self.seen.assign_add(order[-1])

    def between_launches(self) -> None:
        """Fits the layer again when it is due, and carries the student over."""
        config, model = self._config, self._model
        seen, fixed = int(self.seen), model.fixed
        if seen - int(self.fitted) < config.every:
            return
        x = self.sample.numpy()[: min(seen, config.sample)].astype(float)
        old = fixed.mean.numpy().astype(float), fixed.components.numpy().astype(float)
        known = int(fixed.version) > 0
        transfer = TRANSFERS[fixed._transfer]
        k = fixed.components.shape[1]
        new = fit(x, k, transfer, config.sweeps, old[1] if known else None)
        if known:
            turn, shift = new.carried_over(*old)
            layer = model.coefficients
            layer.kernel.assign(layer.kernel.numpy() @ turn.T.astype(np.float32))
            layer.bias.assign((turn @ layer.bias.numpy() + shift).astype(np.float32))
        # The bias is in the wide part, and the student has its own.
        fixed.assign(new, model.pair.teacher.head.kernel)
        self.fitted.assign(seen)
