"""The multiplicative rules: one scale for all variables of a group, one gain for each weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from ctr.errors import ConfigError

RULES = ("cosine", "raw")
GAIN_RULES = ("sign", "cosine", "raw")
#: Bounds of a gain, and of the change of any logarithm in one step.
GAIN_BOUND, MOST = 10.0, 1.0


@dataclass(frozen=True)
class EgScale:
    """Settings of the rules; see the module's attributes of the same names."""

    rate: float = 0.1
    memory: float = 0.9
    rule: str = "cosine"
    lowest: float = 1e-3
    highest: float = 1e3
    gain_rate: float = 0.0
    gain_memory: float = 0.9
    gain_rule: str = "sign"

    def __post_init__(self) -> None:
        if self.rule not in RULES or self.gain_rule not in GAIN_RULES:
            raise ConfigError(
                f"eg_step_size: rule must be one of {', '.join(RULES)} and gain_rule one of "
                f"{', '.join(GAIN_RULES)}, received {self.rule!r} and {self.gain_rule!r}."
            )
        if min(self.rate, self.gain_rate) < 0.0:
            raise ConfigError(
                "eg_step_size: rate and gain_rate must be at least 0, received "
                f"{self.rate} and {self.gain_rate}."
            )
        if not (0.0 <= self.memory < 1.0 and 0.0 <= self.gain_memory < 1.0):
            raise ConfigError(
                "eg_step_size: memory and gain_memory must be at least 0 and below 1, received "
                f"{self.memory} and {self.gain_memory}."
            )
        if not 0.0 < self.lowest <= 1.0 <= self.highest:
            raise ConfigError(
                "eg_step_size: the scale starts at 1, so 0 < lowest <= 1 <= highest is needed; "
                f"received {self.lowest} and {self.highest}."
            )


class ScaleState(tf.Module):
    """Scale and gains of some variables.

    All rules use the old averages and the new gradient: with the new ones, each would hold the
    gradient's product with itself and only ever grow.

    Args:
        config: The rules.
        variables: What is scaled.
    """

    def __init__(self, config: EgScale, variables: Sequence[tf.Variable]) -> None:
        super().__init__(name="eg_scale")
        self._config = config
        self._targets = list(variables)
        self.log_scale = tf.Variable(0.0, name="log_scale")
        self.directions = _zeros(variables, "direction")
        gained = variables if config.gain_rate else ()
        self.averages = _zeros(gained, "average")
        self.log_gains = _zeros(gained, "log_gain")

    def step(
        self, gradients: Sequence[tf.Tensor], move: Callable[[Sequence[tf.Tensor]], None]
    ) -> tf.Tensor:
        """Makes the base optimizer's step, scaled.

        Args:
            gradients: One per variable.
            move: The base step; it takes the gradients times their gains.

        Returns:
            The scale that was applied, float32[].
        """
        before = [variable.read_value() for variable in self._targets]
        move(self._gained(gradients))
        steps = [old - new for old, new in zip(before, self._targets, strict=True)]
        scale = self._scale(gradients, steps)
        for variable, step in zip(self._targets, steps, strict=True):
            # In this form a scale of 1 leaves the base optimizer's bits as they are.
            variable.assign_add((1.0 - scale) * step)
        return scale

    def _scale(self, gradients: Sequence[tf.Tensor], steps: Sequence[tf.Tensor]) -> tf.Tensor:
        config = self._config
        size = dot(gradients, gradients)
        change = dot(self.directions, gradients)
        if config.rule == "cosine":
            change *= _inverse_norm(size) * _inverse_norm(dot(self.directions, self.directions))
        live = _says_something(size) & tf.math.is_finite(change)
        change = tf.clip_by_value(config.rate * change, -MOST, MOST)
        moved = tf.clip_by_value(
            self.log_scale + tf.where(live, change, 0.0),
            math.log(config.lowest), math.log(config.highest),
        )  # fmt: skip
        self.log_scale.assign(moved)
        share = tf.where(live, 1.0 - config.memory, 0.0)
        for direction, step in zip(self.directions, steps, strict=True):
            direction.assign(tf.where(live, direction + share * (step - direction), direction))
        return tf.exp(self.log_scale)

    def _gained(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        if not self.log_gains:
            return gradients
        config = self._config
        live = _says_something(dot(gradients, gradients))
        gained = []
        for log_gain, average, gradient in zip(
            self.log_gains, self.averages, gradients, strict=True
        ):
            change = average * gradient
            if config.gain_rule == "sign":
                change = tf.sign(change)
            elif config.gain_rule == "cosine":
                change *= _inverse_norm(dot([average], [average]))
                change *= _inverse_norm(dot([gradient], [gradient]))
            change = tf.clip_by_value(config.gain_rate * change, -MOST, MOST)
            bound = math.log(GAIN_BOUND)
            moved = tf.clip_by_value(log_gain + change, -bound, bound)
            log_gain.assign(tf.where(live, moved, log_gain))
            follow = average + (1.0 - config.gain_memory) * (gradient - average)
            average.assign(tf.where(live, follow, average))
            gained.append(tf.exp(log_gain) * gradient)
        return gained


def dot(ours: Sequence[tf.Tensor], theirs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the inner product of two lists of tensors, float32[]."""
    # A product with a single column runs as vectors where a plain sum adds one number at a time.
    parts = [
        tf.reshape(tf.matmul(tf.reshape(a, [1, -1]), tf.reshape(b, [-1, 1])), [])
        for a, b in zip(ours, theirs, strict=True)
    ]
    return tf.add_n(parts)


def _says_something(square: tf.Tensor) -> tf.Tensor:
    # A gradient of zeros is that of a batch of padding.
    return tf.math.is_finite(square) & (square > 0.0)


def _inverse_norm(square: tf.Tensor) -> tf.Tensor:
    return tf.math.rsqrt(tf.maximum(square, 1e-37))  # a finite factor for the norm 0


def _zeros(variables: Sequence[tf.Variable], name: str) -> list[tf.Variable]:
    return [tf.Variable(tf.zeros(v.shape), name=name) for v in variables]
