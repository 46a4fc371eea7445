"""Online Platt scaling: a slope and an offset for everything and for every slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Batch
from ctr.calibration import check_newton, newton_terms
from ctr.encoding import Layout
from ctr.errors import ConfigError
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from ctr.slice_rows import SliceRows


@dataclass(frozen=True)
class PlattSettings:
    """What there is to set.

    Attributes:
        prior: Information an offset or a slope needs before it moves half of the way.
        memory: Bound on the information that is remembered; smaller follows faster.
        centre: Logit at which slopes turn; near the stream's mean logit, offset and slope can be
            told apart best.
    """

    prior: float = 30.0
    memory: float = 500.0
    centre: float = -2.0

    def __post_init__(self) -> None:
        check_newton("platt", self.prior, self.memory)


@dataclass(frozen=True)
class Platt(PlattSettings):
    """``z + sum_s (offset_s + slope_s * (z - centre))`` over the slices s of an example.

    Each slice takes damped Newton steps on its two numbers after each batch. The information
    (a 2 x 2 matrix) is bounded, so that slices keep following a drifting stream.

    Attributes:
        buckets: Hashed values kept per sliced feature.
    """

    buckets: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buckets < 1:
            raise ConfigError(f"platt: buckets must be at least 1, received {self.buckets}.")

    def build(self, layout: Layout, slices: Sequence[str], n_tasks: int) -> PlattState:
        """Creates one line per slice and one for everything."""
        return PlattState(self, SliceRows(layout, slices, self.buckets, everything=True), n_tasks)


class PlattState(tf.Module):
    """The built form of :class:`Platt`."""

    def __init__(self, config: Platt, rows: SliceRows, n_tasks: int) -> None:
        super().__init__(name="platt")
        self._config = config
        self._rows = rows
        shape = [rows.count, n_tasks]
        self.offset = tf.Variable(tf.zeros(shape), name="offset")
        self.slope = tf.Variable(tf.zeros(shape), name="slope")
        self.information = [tf.Variable(tf.zeros(shape), name=f"moment_{i}") for i in range(3)]

    def __call__(self, logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Returns calibrated logits float32[B, T]."""
        rows = self._rows(ids)
        offset = tf.reduce_sum(tf.gather(self.offset, rows), axis=1)
        slope = tf.reduce_sum(tf.gather(self.slope, rows), axis=1)
        # A slope below 0 would turn the model's order round; nothing but noise asks for that.
        slope = tf.clip_by_value(slope, -0.9, 3.0)
        return logits + offset + slope * (logits - self._config.centre)

    def learn(self, logits: tf.Tensor, batch: Batch) -> None:
        """Moves offsets and slopes towards the batch's labels."""
        config, rows = self._config, self._rows(batch.ids)
        residual, curvature = newton_terms(self(logits, batch.ids), batch)
        centred = logits - config.centre
        constant, linear = (self._rows.sums(rows, residual * x) for x in (1.0, centred))
        powers = (tf.ones_like(centred), centred, centred * centred)
        moments = [
            old + self._rows.sums(rows, curvature * power)
            for old, power in zip(self.information, powers, strict=True)
        ]
        h, hx, hxx = moments
        h, hxx = h + config.prior, hxx + config.prior
        # The slices of an example share its residual.
        share = 1.0 / (self._rows.per_example * (h * hxx - hx * hx))
        self.offset.assign_sub(share * (hxx * constant - hx * linear))
        self.slope.assign_sub(share * (h * linear - hx * constant))
        keep = tf.minimum(1.0, config.memory / tf.maximum(moments[0], 1e-6))
        for variable, moment in zip(self.information, moments, strict=True):
            variable.assign(keep * moment)


@dataclass(frozen=True)
class PlattLayer(PlattSettings):
    """Replaces the calibrator by :class:`Platt` on the schema's slices.

    Paper: the calibration layer of "On the Factory Floor" (arXiv:2209.05310), sections 3.3 and 7,
    which does not specify it; Platt 1999, "Probabilistic outputs for support vector machines".
    Deviations: online, per slice and additive over sliced features; the update rule is ours.
    Reduces to: the model's own logits as ``prior`` grows.
    """

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="platt",
        paper="On the Factory Floor (arXiv:2209.05310), sections 3.3 and 7",
        replaces=frozenset({"calibrator"}),
    )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with another calibrator."""
        return replace(recipe, calibrator=Platt(**vars(self)))
