"""A model in two halves that meet in an inner product: quality, and presentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from ctr.api import Features, Forward, ModelConfig, Rows
from ctr.encoding import Layout
from ctr.encoding.layout import Slot
from ctr.errors import ConfigError, ModuleError
from ctr.models.layers import flat_inputs, run
from ctr.models.linear import WidePart

TRANSFERS = ("sigmoid", "exp")
#: With "exp": start values of the presentation's factor (0.9) and of each further product (0.01).
_START, _FURTHER = 2.2, -2.2


@dataclass(frozen=True)
class Factorized:
    """``CTR = tau(Q . U)``: Q of quality features by any model, U of presentation features.

    With D further dimensions, ``Q = (1, q, q_1..q_D)`` and ``U = (u, 1, u_1..u_D)``:

    * ``sigmoid``: ``CTR = sigmoid(q + u + sum_i q_i u_i)``;
    * ``exp``: ``CTR = exp(-(f(q) + f(u) + sum_i f(q_i) f(u_i)))`` with ``f(x) = log(1 + exp(-x))``.
      Without further dimensions this is the examination model, the product of the probabilities
      ``sigmoid(q)`` (relevant) and ``sigmoid(u)`` (seen).

    The two ones fix most of the gauge, and u has no bias of its own. Compare predictions, never
    the vectors of two models: further dimensions can still be rotated.

    Attributes:
        base: Model of the quality half; it makes ``1 + dims`` numbers per label.
        dims: Further dimensions, D.
        hidden: Units of the presentation's hidden layers; none leaves it linear.
        transfer: ``sigmoid`` or ``exp``.
    """

    base: ModelConfig
    dims: int = 2
    hidden: tuple[int, ...] = (32,)
    transfer: str = "sigmoid"

    def __post_init__(self) -> None:
        if self.transfer not in TRANSFERS:
            raise ConfigError(
                f"transfer must be {' or '.join(TRANSFERS)}, received {self.transfer!r}."
            )
        if self.dims < 0 or any(units < 1 for units in self.hidden):
            raise ConfigError(
                "a factorized model needs dims of at least 0 and hidden units of at least 1, "
                f"received {self.dims} and {self.hidden}."
            )
        if self.dims and not self.hidden:
            raise ConfigError(
                "a factorized model without hidden units has no further dimensions; received "
                f"dims = {self.dims}."
            )

    @property
    def dim(self) -> int:
        """Embedding columns."""
        return self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> FactorizedModel:
        """Creates the variables; equal seeds give equal bits.

        Raises:
            ModuleError: a half would have no feature, or a cross would be in both.
        """
        return FactorizedModel(self, layout, n_tasks, seed)


@dataclass(frozen=True)
class Half:
    """The features of one half.

    Attributes:
        layout: Their layout among themselves.
        columns: Their id slots.
        features: Their places among the hashed features.
        numeric: Their places among the numeric features.
    """

    layout: Layout
    columns: list[int]
    features: list[int]
    numeric: list[int]

    def __call__(self, features: Features) -> Features:
        """Returns only what belongs to this half."""
        rows = Rows(*(_at(part, self.columns) for part in features.rows))
        return Features(
            _at(features.vectors, self.features), _at(features.linear, self.features),
            _at(features.numeric, self.numeric), _at(features.ids, self.columns), rows,
            features.seen,
        )  # fmt: skip


def _at(values: tf.Tensor, places: list[int]) -> tf.Tensor:
    return tf.gather(values, tf.constant(places, tf.int32), axis=1)


class FactorizedModel(tf.Module):
    """The built form of :class:`Factorized`."""

    def __init__(self, config: Factorized, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="factorized")
        self.dim = config.dim
        self._config = config
        self._n_tasks = n_tasks
        self._quality, self._presentation = halves(layout)
        own = self._presentation.layout
        if config.hidden and not own.n_features * config.dim + len(own.numeric):
            raise ModuleError(
                "the presentation half has hidden layers, but the model has no embeddings to feed "
                "them. Set hidden = [] and dims = 0, or use a model with embeddings."
            )
        outputs = n_tasks * (1 + config.dims)
        self.base = config.base.build(self._quality.layout, outputs, seed)
        if getattr(self.base, "n_wide", outputs) != outputs:
            raise ModuleError(
                f"{type(config.base).__name__} cannot be the quality half of a factorized model. "
                "Put ui_factorization before the module that wraps the model."
            )
        self._ui_wide = WidePart(own, n_tasks)
        self.wide = _WideParts([getattr(self.base, "wide", None), self._ui_wide])
        self.hidden = [
            tf_keras.layers.Dense(
                units, "relu", kernel_initializer=tf_keras.initializers.HeNormal(seed * 1000 + i)
            )
            for i, units in enumerate(config.hidden, start=800)
        ]
        # The first number starts at 0 as all heads do; the further ones must not, or with both
        # factors at 0 their product would never leave it.
        spread = tf_keras.initializers.GlorotNormal(seed * 1000 + 900)
        self.first = tf_keras.layers.Dense(n_tasks, use_bias=False, kernel_initializer="zeros")
        self.further = tf_keras.layers.Dense(
            n_tasks * config.dims, use_bias=False, kernel_initializer=spread
        )

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]; ``aux`` holds both vectors, float32[B, T, 1 + D]."""
        quality = self.quality(features, training)
        presentation = self.presentation(features)
        logits = self.logits(quality, presentation)
        return Forward(logits, {"quality": quality, "presentation": presentation})

    def quality(self, features: Features, training: bool) -> tf.Tensor:
        """Returns ``(q, q_1..q_D)`` float32[B, T, 1 + D]; no presentation feature has a say."""
        own = self._quality(features)
        # The wide weights of an id speak for q alone.
        padding = self._n_tasks * self._config.dims
        own = own._replace(
            linear=tf.pad(own.linear, [[0, 0], [0, 0], [0, padding]]),
            rows=own.rows._replace(wide=tf.pad(own.rows.wide, [[0, 0], [0, 0], [0, padding]])),
        )
        return self._by_task(self.base(own, training).logits)

    def presentation(self, features: Features) -> tf.Tensor:
        """Returns ``(u, u_1..u_D)`` float32[B, T, 1 + D]; no quality feature has a say."""
        own = self._presentation(features)
        # Without its bias: the level belongs to the quality half, or it would be in both.
        first = self._ui_wide(own) - self._ui_wide.bias
        if not self.hidden:
            return self._by_task(first)
        last, _ = run(self.hidden, flat_inputs(own))
        first += self.first(last)
        if not self._config.dims:
            return self._by_task(first)
        return self._by_task(tf.concat([first, self.further(last)], axis=1))

    def logits(self, quality: tf.Tensor, presentation: tf.Tensor) -> tf.Tensor:
        """Returns the log-odds of ``tau(Q . U)``, float32[..., T]; the arguments broadcast.

        ``logits(q[:, None], u[None])`` scores N ads in M presentations, float32[N, M, T].
        """
        q, u = quality, presentation
        if self._config.transfer == "sigmoid":
            return q[..., 0] + u[..., 0] + tf.reduce_sum(q[..., 1:] * u[..., 1:], axis=-1)
        seen = tf.nn.softplus(-(u[..., 0] + _START))
        further = tf.nn.softplus(q[..., 1:] + _FURTHER) * tf.nn.softplus(u[..., 1:] + _FURTHER)
        surprise = tf.nn.softplus(-q[..., 0]) + seen + tf.reduce_sum(further, axis=-1)
        # log(p / (1 - p)) for p = exp(-surprise), without taking 1 - p.
        surprise = tf.maximum(surprise, 1e-6)
        return -surprise - tf.math.log(-tf.math.expm1(-surprise))

    def _by_task(self, outputs: tf.Tensor) -> tf.Tensor:
        # Column d * T + t: number d of task t, so that the wide weights meet the first ones.
        shape = [-1, 1 + self._config.dims, self._n_tasks]
        return tf.transpose(tf.reshape(outputs, shape), [0, 2, 1])


class _WideParts(tf.Module):
    """The wide parts of both halves, for the optimizer that moves such parts."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__(name="wide")
        self.parts = [part for part in parts if part is not None]


def halves(layout: Layout) -> tuple[Half, Half]:
    """Splits features by ``ui``; a cross belongs to the half that all its parts belong to.

    Raises:
        ModuleError: a half would be empty, or a cross would be in both.
    """
    ui = {s.feature.name: s.feature.ui for s in layout.slots if not s.feature.cross}
    ui |= {feature.name: feature.ui for feature in layout.numeric}
    for slot in layout.slots:
        sides = {ui[part] for part in slot.feature.cross}
        if len(sides) > 1:
            raise ModuleError(
                f"the cross {slot.feature.name!r} of {', '.join(slot.feature.cross)} is neither "
                "quality nor presentation, which a factorized model keeps apart. Remove it, or "
                "cross features of one kind."
            )
        if sides:
            ui[slot.feature.name] = sides.pop()
    if len(set(ui.values())) < 2:
        raise ModuleError(
            "a factorized model needs quality and presentation features, but "
            f"{'all are' if any(ui.values()) else 'none is'} marked `ui = true` in the schema. "
            "Mark those that describe where and how an item is shown."
        )
    return part_of(layout, ui, False), part_of(layout, ui, True)


def part_of(layout: Layout, ui: dict[str, bool], wanted: bool) -> Half:
    """Returns the features whose flag, by name, is ``wanted``."""
    chosen = [i for i, slot in enumerate(layout.slots) if ui[slot.feature.name] is wanted]
    numeric = [i for i, feature in enumerate(layout.numeric) if ui[feature.name] is wanted]
    slots = _packed([layout.slots[i] for i in chosen])
    columns = [c for i in chosen for c in range(layout.slots[i].start, layout.slots[i].stop)]
    own = Layout(slots, tuple(layout.numeric[i] for i in numeric))
    return Half(own, columns, chosen, numeric)


def _packed(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Returns the slots side by side from 0."""
    packed: list[Slot] = []
    for slot in slots:
        start = packed[-1].stop if packed else 0
        packed.append(Slot(slot.feature, start, start + slot.stop - slot.start))
    return tuple(packed)
