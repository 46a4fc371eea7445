"""Monitors of a live stream: is it still the stream that the model knows?

Every window of so many examples gives one number per monitor. It is compared with the mean of the
windows before by the prediction interval of a t distribution, all monitors sharing one rate of
false alarms (Bonferroni). Sudden changes are seen, slow ones are not. A window in alarm is not
remembered, so what is broken does not become normal; the alarm ends with a run of windows like
those before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import t as student

from ctr.data.examples import Block
from ctr.encoding import Encoder
from ctr.errors import ConfigError
from ctr.slice_calibration import SliceCalibration

log = logging.getLogger(__name__)

_BUCKETS = 64
#: Windows without alarm that end one.
_CALM = 3
#: First windows that are not remembered: all ids are new in them.
_WARM = 3
_TINY = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HealthConfig:
    """How closely a stream is watched.

    Attributes:
        window: Examples per window.
        history: Windows that are remembered, the newest ones.
        burn_in: Windows that a new one is compared with, at least 3; there is no alarm before.
        false_alarms: Chance of a false alarm per window, all monitors together, if windows of a
            sound stream are like draws from one normal distribution.
    """

    window: int = 5000
    history: int = 60
    burn_in: int = 10
    false_alarms: float = 1e-3

    def __post_init__(self) -> None:
        if not 3 <= self.burn_in <= self.history or self.window < 1:
            raise ConfigError(
                "health: window must be at least 1 and burn_in from 3 to history, received "
                f"window {self.window}, burn_in {self.burn_in}, history {self.history}."
            )
        if not 0.0 < self.false_alarms < 1.0:
            raise ConfigError(
                f"health: false_alarms must be between 0 and 1, received {self.false_alarms}."
            )


class HealthMonitor:
    """Watches rows as they are learned.

    Monitors: ``missing``, ``new_ids`` and ``distance`` (of the distribution of ids from that of
    the history, square root of the Jensen-Shannon divergence) of every feature with ids,
    ``missing`` and ``mean`` of every number, ``base_rate``, ``calibration`` and ``log_loss`` of
    the first label, and for every slicing of the schema ``calibration by`` it. A prediction that
    is no number is an alarm at once.

    Args:
        encoder: Of the learner.
        config: See :class:`HealthConfig`.
    """

    def __init__(self, encoder: Encoder, config: HealthConfig | None = None) -> None:
        self.config = config or HealthConfig()
        self._layout = encoder.layout
        self._empty = _empty_ids(encoder)
        self._seen = np.zeros(encoder.n_rows, np.bool_)
        self._ids: list[NDArray[np.int32]] = []
        self._numeric: list[NDArray[np.float32]] = []
        self._scores: list[NDArray[np.float64]] = []
        self._codes: list[NDArray[np.int64]] = []
        self._slices = SliceCalibration(encoder.schema.slices)
        self._rows = 0
        slots = [slot.feature.name for slot in self._layout.slots]
        numbers = [feature.name for feature in self._layout.numeric]
        self.names = [
            *(f"{kind} of {name}" for name in slots for kind in ("missing", "new_ids", "distance")),
            *(f"{kind} of {name}" for name in numbers for kind in ("missing", "mean")),
            "base_rate", "calibration", "log_loss", *self._slices.names,
        ]  # fmt: skip
        self._values = np.zeros((0, len(self.names)))
        self._shapes = np.zeros((len(slots), _BUCKETS))
        self.windows = 0
        self._calm = 0
        self.alarms: list[str] = []

    @property
    def healthy(self) -> bool:
        """False while an alarm is on."""
        return not self.alarms

    @property
    def n_unjudged(self) -> int:
        """Rows since the last window."""
        return self._rows

    def observe(self, blocks: Sequence[Block], probs: NDArray[np.float32]) -> None:
        """Takes in rows and their progressive predictions float32[n, T], of whole chunks."""
        at = 0
        for block in blocks:
            n = len(block.time_us)
            prob, label = probs[at : at + n, 0].astype(np.float64), block.scored_labels[:, 0]
            at += n
            self._ids.append(block.ids)
            self._numeric.append(block.numeric)
            self._scores.append(np.column_stack([prob, label, block.weights]))
            self._codes.append(self._slices.encode(block.frame))
            self._rows += n
        if self._rows >= self.config.window:
            self._close()

    def _close(self) -> None:
        """Judges what was taken in since the last window; its length is a matter of chunks."""
        ids, numeric = np.concatenate(self._ids), np.concatenate(self._numeric)
        scores, codes = np.concatenate(self._scores), np.concatenate(self._codes)
        self._ids, self._numeric, self._scores, self._codes, self._rows = [], [], [], [], 0
        values, noise, shapes = self._measure(ids, numeric, scores)
        by_slice, worst = self._slices.measure(codes, scores)
        values, noise = np.append(values, by_slice), np.append(noise, np.ones(len(by_slice)))
        first_slice = len(self.names) - len(by_slice)
        # Always: what came up during an alarm would otherwise count as new ever after.
        self._seen[ids[ids > 0]] = True
        self.windows += 1
        found = [] if np.isfinite(scores[:, 0]).all() else ["predictions are not finite"]
        n = len(self._values)
        if n >= self.config.burn_in:
            # The last windows are the measure, and the steps between windows the spread: a day
            # has its course, and fewer and fewer ids are new.
            last = self._values[-self.config.burn_in :]
            mean = last.mean(axis=0)
            spread = np.sqrt((np.diff(self._values, axis=0) ** 2).mean(axis=0) / 2.0)
            # Never surer than chance allows: a history without changes has no spread of its own.
            scale = np.sqrt(np.maximum(spread**2, noise**2) * (1.0 + 1.0 / len(last)))
            share = self.config.false_alarms / (2.0 * len(self.names))
            limit = float(student.isf(share, n - 1))
            z = (values - mean) / scale
            found += [
                f"{self.names[k]}: {abs(z[k]):.1f} standard deviations "
                f"{'above' if z[k] > 0 else 'below'} the last {len(last)} windows, "
                f"limit {limit:.1f}" + (f"; {worst[k - first_slice]}" if k >= first_slice else "")
                for k in np.flatnonzero(~(np.abs(z) <= limit))
            ]
        if found:
            self.alarms, self._calm = found, 0
            return
        self._calm += 1
        if self.alarms and self._calm < _CALM:
            return
        self.alarms = []
        if self.windows > _WARM:
            self._values = np.vstack([self._values, values])[-self.config.history :]
        self._shapes += (shapes - self._shapes) / min(self.windows, self.config.history)

    def _measure(
        self, ids: NDArray[np.int32], numeric: NDArray[np.float32], scores: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Returns the monitors' numbers, their least noise, and histograms by feature."""
        n = len(ids)
        one = 0.5 / np.sqrt(n)  # standard deviation of an arc sine of a share
        values: list[float] = []
        noise: list[float] = []
        shapes = np.zeros_like(self._shapes)
        for k, slot in enumerate(self._layout.slots):
            own = ids[:, slot.start : slot.stop]
            empty = self._empty[slot.start]
            there = own[(own != empty) & (own != 0)] if slot.feature.kind == "bag" else own
            fresh = np.mean(~self._seen[there]) if there.size else 0.0
            shapes[k] = np.bincount(there.ravel() % _BUCKETS, minlength=_BUCKETS)
            shapes[k] /= max(shapes[k].sum(), 1.0)
            values += [_angle(np.mean(own[:, 0] == empty)), _angle(float(fresh)),
                       _distance(shapes[k], self._shapes[k])]  # fmt: skip
            noise += [one, one, np.sqrt(_BUCKETS / n) / 4.0]
        for k in range(numeric.shape[1]):
            column = numeric[:, k].astype(np.float64)
            known = column[np.isfinite(column)]
            values += [_angle(1.0 - len(known) / n), float(known.mean()) if len(known) else 0.0]
            noise += [one, float(known.std()) / np.sqrt(n) + _TINY if len(known) else 1.0]
        return np.array([*values, *_of_scores(scores)]), np.array([*noise, *_noise(scores)]), shapes

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns everything as plain arrays."""
        state: dict[str, np.ndarray] = {
            "values": self._values, "shapes": self._shapes, "seen": np.packbits(self._seen),
            "counts": np.array([self.windows, self._calm]),
            "alarms": np.array(self.alarms, np.str_),
            "about": self._about(),
            **self._slices.state_dict(),
        }  # fmt: skip
        if self._ids:
            state |= {"ids": np.concatenate(self._ids), "numeric": np.concatenate(self._numeric),
                      "scores": np.concatenate(self._scores),
                      "codes": np.concatenate(self._codes)}  # fmt: skip
        return state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes over what :meth:`state_dict` gave.

        A history of other monitors or of windows of another length is no measure: then a new one
        begins.
        """
        if not np.array_equal(state.get("about", ()), self._about()):
            log.warning("the stream is watched in another way than before; a new history begins")
            return
        self._slices.load_state(state)
        self._values, self._shapes = state["values"], state["shapes"].copy()
        self._seen = np.unpackbits(state["seen"], count=len(self._seen)).astype(np.bool_)
        self.windows, self._calm = (int(value) for value in state["counts"])
        self.alarms = [str(alarm) for alarm in state["alarms"]]
        if "ids" in state:
            self._ids, self._numeric = [state["ids"]], [state["numeric"]]
            self._scores, self._rows = [state["scores"]], len(state["ids"])
            self._codes = [state["codes"]]

    def _about(self) -> NDArray[np.str_]:
        return np.array([str(self.config.window), *self.names])


def _angle(share: float) -> float:
    """Makes the spread of a share independent of the share."""
    return float(np.arcsin(np.sqrt(share)))


def _distance(a: Floats, b: Floats) -> float:
    middle = (a + b) / 2.0 + _TINY
    parts = [np.sum(x * np.log((x + _TINY) / middle)) for x in (a, b)]
    return float(np.sqrt(max(sum(parts) / 2.0, 0.0)))


def _of_scores(scores: Floats) -> list[float]:
    prob, label, weight = scores[scores[:, 1] >= 0].T
    p = np.clip(prob, 1e-7, 1.0 - 1e-7)
    total = max(weight.sum(), _TINY)
    positive = float((weight * label).sum())
    loss = -(weight * (label * np.log(p) + (1.0 - label) * np.log1p(-p))).sum() / total
    calibration = np.log((float((weight * prob).sum()) + 1.0) / (positive + 1.0))
    return [_angle(min(positive / total, 1.0)), float(calibration), float(loss)]


def _noise(scores: Floats) -> list[float]:
    prob, label, _ = scores[scores[:, 1] >= 0].T
    n, positive = max(len(prob), 1), label.sum() + 1.0
    p = np.clip(prob, 1e-7, 1.0 - 1e-7)
    spread = np.sqrt((p * (1.0 - p) * np.log(p / (1.0 - p)) ** 2).sum()) / n
    return [0.5 / np.sqrt(n), 1.0 / np.sqrt(positive), float(spread) + _TINY]


def _empty_ids(encoder: Encoder) -> NDArray[np.int32]:
    """Returns int32[S], the ids of an example without any value."""
    columns = {}
    for feature in encoder.schema.features:
        if feature.cross:
            continue
        kind = pa.float32() if feature.kind == "numeric" else pa.string()
        if feature.kind == "bag" and not feature.text and not feature.separator:
            kind = pa.list_(pa.string())
        columns[feature.name] = pa.nulls(1, kind)
    return encoder.encode(pa.RecordBatch.from_pydict(columns)).ids[0]
