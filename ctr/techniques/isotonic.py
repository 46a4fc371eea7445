"""Online isotonic calibration: a monotone map of log-odds, learned bin by bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import tensorflow as tf

from ctr.api import Batch, Calibrator, CalibratorState
from ctr.calibration import SliceBias, check_newton, newton_terms
from ctr.encoding import Layout
from ctr.errors import ConfigError
from ctr.module import ModuleInfo
from ctr.recipe import Recipe


@dataclass(frozen=True)
class IsotonicSettings:
    """What there is to set.

    Attributes:
        knots: Number of knots between ``low`` and ``high``.
        low: First knot, in log-odds.
        high: Last knot.
        prior: Information a knot needs before it moves half of the way.
        memory: Bound on the information that is remembered per knot; smaller follows faster.
    """

    knots: int = 13
    low: float = -8.0
    high: float = 4.0
    prior: float = 30.0
    memory: float = 1000.0

    def __post_init__(self) -> None:
        if self.knots < 2 or self.low >= self.high:
            raise ConfigError(
                "isotonic: needs two or more knots between low and a larger high, received "
                f"knots = {self.knots}, low = {self.low}, high = {self.high}."
            )
        check_newton("isotonic", self.prior, self.memory)


@dataclass(frozen=True)
class Isotonic(IsotonicSettings):
    """A piecewise linear, never falling map of the logit, then another calibrator.

    The map has its knots on a grid of log-odds. Each knot takes damped Newton steps on the
    residuals of the logits near it (they count for the two knots around them, the nearer one
    more), then the knots are put in order by weighted isotonic regression. Beyond the grid the
    map continues as a shift.

    Attributes:
        after: Calibrator that follows, on the mapped logit.
    """

    after: Calibrator = field(default_factory=SliceBias)

    def build(self, layout: Layout, slices: Sequence[str], n_tasks: int) -> IsotonicState:
        """Creates the knots at the identity, and the calibrator that follows."""
        return IsotonicState(self, self.after.build(layout, slices, n_tasks), n_tasks)


class IsotonicState(tf.Module):
    """The built form of :class:`Isotonic`."""

    def __init__(self, config: Isotonic, after: CalibratorState, n_tasks: int) -> None:
        super().__init__(name="isotonic")
        self._config = config
        self.after = after
        grid = np.linspace(config.low, config.high, config.knots, dtype=np.float32)
        self._grid = grid
        self.values = tf.Variable(np.repeat(grid[:, None], n_tasks, axis=1), name="values")
        self.information = tf.Variable(tf.zeros([config.knots, n_tasks]), name="information")

    def __call__(self, logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Returns calibrated logits float32[B, T]."""
        return self.after(self._mapped(logits), ids)

    def learn(self, logits: tf.Tensor, batch: Batch) -> None:
        """Moves the knots towards the batch's labels, then lets the next calibrator learn."""
        mapped = self._mapped(logits)
        residual, curvature = newton_terms(self.after(mapped, batch.ids), batch)
        near = self._nearness(logits)
        information = self.information + tf.einsum("btk,bt->kt", near, curvature)
        gradient = tf.einsum("btk,bt->kt", near, residual)
        self.after.learn(mapped, batch)
        moved = self.values - gradient / (information + self._config.prior)
        # A knot without information has no say in the order: it would hold its neighbours back.
        self.values.assign(in_order(moved, information + 1e-3))
        self.information.assign(tf.minimum(information, self._config.memory))

    def _nearness(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns each knot's share of a logit, float32[B, T, K]; shares sum to 1."""
        inside = tf.clip_by_value(logits, self._config.low, self._config.high)
        spacing = float(self._grid[1] - self._grid[0])
        return tf.maximum(1.0 - tf.abs(inside[:, :, None] - self._grid) / spacing, 0.0)

    def _mapped(self, logits: tf.Tensor) -> tf.Tensor:
        shift = self.values - self._grid[:, None]
        # The grid's own part is added outside, so that untouched knots leave every bit alone.
        return logits + tf.einsum("btk,kt->bt", self._nearness(logits), shift)


def in_order(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted isotonic regression of ``values`` float32[K, T] along the first axis.

    The closed form ``max over i <= k of min over j >= k of mean(i..j)``: for tens of knots it is
    cheaper in a compiled loop than pooling adjacent violators, which needs data-dependent steps.
    Values in order are returned bit for bit.
    """
    n = values.shape[0]
    mass = tf.cumsum(tf.pad(weights, [[1, 0], [0, 0]]))
    moment = tf.cumsum(tf.pad(weights * values, [[1, 0], [0, 0]]))
    # means[i, j] of knots i..j; nonsense below the diagonal, masked out below.
    total = mass[None, 1:] - mass[:-1, None]
    means = (moment[None, 1:] - moment[:-1, None]) / tf.where(total > 0.0, total, 1.0)
    i, j, k = np.ogrid[:n, :n, :n]
    lowest = tf.reduce_min(
        tf.where(((j >= k) & (i <= k))[..., None], means[:, :, None], np.inf), axis=1
    )
    first, last = np.ogrid[:n, :n]
    best = tf.reduce_max(tf.where((first <= last)[..., None], lowest, -np.inf), axis=0)
    ordered = tf.reduce_all(values[1:] >= values[:-1], axis=0)
    return tf.where(ordered, values, best)


@dataclass(frozen=True)
class IsotonicLayer(IsotonicSettings):
    """Puts :class:`Isotonic` between the model and its calibrator.

    Paper: the calibration layer of "On the Factory Floor" (arXiv:2209.05310), sections 3.3 and 7,
    which does not specify it; McMahan et al. 2013, "Ad click prediction: a view from the
    trenches", section 7 (isotonic regression on predictions).
    Deviations: on log-odds, online.
    Reduces to: the calibrator that was there as ``prior`` grows.
    """

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="isotonic",
        paper="On the Factory Floor (arXiv:2209.05310), sections 3.3 and 7",
        extends=frozenset({"calibrator"}),
    )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with the map before its calibrator."""
        return replace(recipe, calibrator=Isotonic(**vars(self), after=recipe.calibrator))
