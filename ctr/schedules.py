"""Schedules: how much a part of a loss or of a model counts at a moment of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import tensorflow as tf

from ctr.api import Batch
from ctr.errors import ConfigError

UNITS = ("examples", "hours")


@dataclass(frozen=True)
class Ramp:
    """Rises linearly from 0 to 1: ``clip((x - start) / length, 0, 1)``.

    ``x`` counts the examples of the stream before the batch, or the hours of event time since a
    given moment. Both are properties of the stream and not of the process, so a resumed run goes
    on where it was and does not begin to rise again.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.1.3; shape and length are ours.
    Reduces to: the constant 1 with ``length = 0`` and ``start = 0``.

    Attributes:
        length: Examples or hours from 0 to 1; 0 makes a step at ``start``.
        start: Examples or hours before it begins to rise.
        unit: What ``length`` and ``start`` count: ``examples`` or ``hours``.
        since: With hours: the ISO time they are counted from, e.g. ``2024-05-01T00:00Z``.
    """

    length: float = 0.0
    start: float = 0.0
    unit: str = "examples"
    since: str = ""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(f"ramp: unit must be {' or '.join(UNITS)}, received {self.unit!r}.")
        if self.length < 0 or self.start < 0:
            raise ConfigError(
                f"ramp: length and start must be at least 0, received {self.length} and "
                f"{self.start}."
            )
        if bool(self.since) != (self.unit == "hours"):
            raise ConfigError(
                "ramp: hours are counted from `since` (an ISO time), and only they need it; "
                f"received unit = {self.unit!r}, since = {self.since!r}."
            )
        if self.since:
            time_us(self.since)

    @property
    def columns(self) -> tuple[str, ...]:
        """Side columns it needs."""
        return ("event_time",) if self.unit == "hours" else ()

    def __call__(self, batch: Batch) -> tf.Tensor:
        """Returns float32[] for a batch."""
        if self.unit == "examples":
            return self.at(batch.seen)
        # Padding carries time 0, which is never the newest.
        newest = tf.reduce_max(batch.side["event_time"])
        return self._rise(tf.cast(newest - time_us(self.since), tf.float64) / 3.6e9)

    def at(self, seen: tf.Tensor) -> tf.Tensor:
        """Returns float32[] after ``seen`` examples; what models use, who see no event time."""
        return self._rise(tf.cast(seen, tf.float64))

    def _rise(self, x: tf.Tensor) -> tf.Tensor:
        x -= self.start
        value = tf.cast(x >= 0.0, tf.float64) if not self.length else x / self.length
        return tf.cast(tf.clip_by_value(value, 0.0, 1.0), tf.float32)


def time_us(text: str) -> int:
    """Returns microseconds since the epoch of an ISO time; without a zone it is UTC.

    Raises:
        ConfigError: it is no such time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no ISO time. Write it like 2024-05-01 or 2024-05-01T06:00Z."
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e6)
