"""A model that keeps what per-example gradients are made of: each layer's input and output.

The gradient of example i with respect to a kernel is ``x_i (outer) delta_i``, so its norm is
``|x_i| |delta_i|`` and no per-example gradient has to be formed: one backward pass to the layers'
outputs is enough (the book-keeping, or ghost-norm, method).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from ctr.api import Features, Forward, ModelConfig
from ctr.encoding import Layout
from ctr.errors import ModuleError, nearest
from ctr.models.linear import WidePart

_BATCH_NORM = tf_keras.layers.BatchNormalization


class Parameter(NamedTuple):
    """A dense variable as a function of one recorded output.

    Attributes:
        variable: The variable.
        norms: From ``delta`` float32[B, ...] to the squared norms of the per-example gradients,
            float32[B].
        total: From ``delta`` to the sum of the per-example gradients.
    """

    variable: tf.Variable
    norms: Callable[[tf.Tensor], tf.Tensor]
    total: Callable[[tf.Tensor], tf.Tensor]


class Call(NamedTuple):
    """One layer's output, and the parameters it depends on by this call."""

    output: tf.Tensor
    parameters: list[Parameter]


class Recorder:
    """Collects calls while it is on; no module, so that nothing of it is saved with a model."""

    def __init__(self) -> None:
        self.calls: list[Call] | None = None

    def add(self, call: Call) -> None:
        """Adds a call, if one is recording."""
        if self.calls is not None:
            self.calls.append(call)


@dataclass(frozen=True)
class Recorded:
    """A model whose layers are recorded in training.

    Attributes:
        base: The model: its dense variables may be in Dense layers and in a wide part only.
        user: Categorical feature that identifies users; empty if examples are the unit.
    """

    base: ModelConfig
    user: str = ""

    @property
    def dim(self) -> int:
        """Embedding columns."""
        return self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> RecordedModel:
        """Creates the variables; equal seeds give equal bits.

        Raises:
            ModuleError: the stream's features keep statistics that are not private, or there is
                no such user feature.
        """
        return RecordedModel(self, layout, n_tasks, seed)


class RecordedModel(tf.Module):
    """The built form of :class:`Recorded`."""

    def __init__(self, config: Recorded, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="recorded")
        for slot in layout.slots:
            if slot.feature.admission > 1 or slot.feature.expiry_s:
                raise ModuleError(
                    f"dp_training: feature {slot.feature.name!r} counts its ids (admission or "
                    "expiry), and the counts are not private. Set admission = 1 and expiry_s = 0."
                )
        self.seed, self.dim = seed, config.dim
        base: Any = config.base.build(layout, n_tasks, seed)
        self.base = base
        self.n_wide = getattr(base, "n_wide", n_tasks)
        self.user_slot = _user_slot(layout, config.user) if config.user else -1
        self._recorder = Recorder()
        self._patched: set[int] = set()
        if isinstance(getattr(base, "wide", None), WidePart):
            base.wide = _RecordedWide(base.wide, self._recorder)

    @property
    def wide(self) -> tf.Module:
        """The wide part, for the optimizer that moves it."""
        return getattr(self.base, "wide", tf.Module())

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns the base's logits float32[B, T]."""
        if not training:
            return self.base(features, training)
        self._patch()
        self._recorder.calls = []
        return self.base(features, training)

    def take(self, forward: Forward) -> list[Call]:
        """Returns the calls of the latest training pass, whose result is ``forward``, once.

        Raises:
            ModuleError: a variable takes part in a way that is not recorded.
        """
        calls, self._recorder.calls = self._recorder.calls or [], None
        # The tower lists its layers itself; those inside of cross layers are only recorded.
        calls = [
            *calls,
            *(Call(x.preactivation, _dense(x.kernel, x.bias, x.inputs)) for x in forward.layers),
        ]
        found = [p.variable.ref() for call in calls for p in call.parameters]
        missing = [v.name for v in self.trainable_variables if v.ref() not in set(found)]
        if missing or len(set(found)) < len(found):
            what = ", ".join(missing) or "a layer that is called twice"
            raise ModuleError(
                f"dp_training cannot clip per example through {what}: only Dense layers on "
                "matrices, each called once, and the wide part are supported. Use lr, mlp, "
                "wide_dcn or dlrm without wrappers, and put dp_training last."
            )
        return calls

    def _patch(self) -> None:
        for layer in self.base.submodules:
            if isinstance(layer, _BATCH_NORM):
                raise ModuleError(
                    "dp_training: batch normalisation mixes examples, so that no gradient belongs "
                    "to one of them. Remove it from the model."
                )
            if isinstance(layer, tf_keras.layers.Dense) and id(layer) not in self._patched:
                self._patched.add(id(layer))
                layer.call = _recording_call(layer, self._recorder)


def _recording_call(layer: Any, recorder: Recorder) -> Callable[[tf.Tensor], tf.Tensor]:
    def call(inputs: tf.Tensor) -> tf.Tensor:
        out = tf.matmul(inputs, layer.kernel)
        if layer.use_bias:
            out = tf.nn.bias_add(out, layer.bias)
        bias = layer.bias if layer.use_bias else None
        recorder.add(Call(out, _dense(layer.kernel, bias, inputs)))
        return out if layer.activation is None else layer.activation(out)

    return tf.autograph.experimental.do_not_convert(call)


def _dense(kernel: tf.Variable, bias: tf.Variable | None, inputs: tf.Tensor) -> list[Parameter]:
    if inputs.shape.rank != 2:
        raise ModuleError(
            f"dp_training: the layer of {kernel.name} reads a tensor of rank "
            f"{inputs.shape.rank}; only matrices are supported."
        )
    size = _squares(inputs)
    parameters = [
        Parameter(
            kernel,
            lambda delta: size * _squares(delta),
            lambda delta: tf.matmul(inputs, delta, transpose_a=True),
        )
    ]
    if bias is not None:
        parameters.append(Parameter(bias, _squares, lambda delta: tf.reduce_sum(delta, 0)))
    return parameters


class _RecordedWide(tf.Module):
    """A wide part whose output is recorded."""

    def __init__(self, wide: WidePart, recorder: Recorder) -> None:
        super().__init__(name="recorded_wide")
        self.part, self._recorder = wide, recorder

    def __call__(self, features: Features) -> tf.Tensor:
        out = self.part(features)
        linear, numeric = features.linear, features.numeric
        wide = self.part
        parameters = [
            Parameter(wide.bias, _squares, lambda delta: tf.reduce_sum(delta, axis=0)),
            Parameter(
                wide.numeric,
                lambda delta: _squares(numeric) * _squares(delta),
                lambda delta: tf.matmul(numeric, delta, transpose_a=True),
            ),
        ]
        if wide.gain.trainable:
            parameters.append(
                Parameter(
                    wide.gain,
                    lambda delta: tf.reduce_sum((linear * delta[:, None]) ** 2, axis=[1, 2]),
                    lambda delta: tf.reduce_sum(linear * delta[:, None], axis=0),
                )
            )
        self._recorder.add(Call(out, parameters))
        return out


def row_norms(ids: tf.Tensor, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the squared norm of each example's gradient with respect to the table, float32[B].

    An id that stands several times in an example is one row: its gradients add up first.

    Args:
        ids: int32[B, S].
        gradients: float32[B, S, C] each, per occurrence.
    """
    same = tf.cast(ids[:, :, None] == ids[:, None, :], tf.float32)
    parts = [tf.matmul(g, g, transpose_b=True) for g in gradients if g.shape[-1]]
    return tf.reduce_sum(same * tf.add_n(parts), axis=[1, 2])


def _squares(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x * x, axis=1)


def _user_slot(layout: Layout, name: str) -> int:
    plain = {slot.feature.name: slot.start for slot in layout.plain}
    if name not in plain:
        raise ModuleError(
            f"dp_training: the stream has no categorical feature {name!r} to tell users by: "
            f"{nearest(name, plain)}"
        )
    return plain[name]
