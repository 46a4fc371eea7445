"""Nesterov, Adam, LARS and LAMB for dense variables, with each variant spelled out.

``w`` is a variable, ``g`` its gradient, ``eta`` the scheduled rate, ``lambda`` the weight decay and
``mu = beta1`` the momentum. Vectors, and matrices of one column, are on the skip list: no decay,
and a trust ratio of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Settings(NamedTuple):
    """Hyper-parameters of a rule: numbers, or tensors where a study tries many without compiling.

    Attributes:
        rate: Peak learning rate.
        one_minus_beta1: 1 - momentum.
        weight_decay: lambda.
        warmup: Steps over which the rate rises from 0.
        total: Steps until the rate has fallen to ``end``; 0 keeps it after the warm-up.
        power: Power of that fall.
        end: Last rate.
        beta2: Of Adam and LAMB.
        epsilon: Of Adam and LAMB.
        eeta: Trust coefficient of LARS.
        summed: LARS divides by ``|g| + lambda |w|`` if True (the MLPerf reference), by
            ``|g + lambda w|`` if False (optax).
    """

    rate: Any
    one_minus_beta1: Any = 0.1
    weight_decay: Any = 0.0
    warmup: Any = 0.0
    total: int = 0
    power: Any = 2.0
    end: Any = 1e-4
    beta2: Any = 0.99
    epsilon: float = 1e-8
    eeta: float = 1e-3
    summed: bool = True


def scheduled_rate(settings: Settings, step: tf.Tensor) -> tf.Tensor:
    """Returns the rate of a step (counted from 0), float32[].

    Linear warm-up from 0, then ``end + (rate - end) * (1 - (t - W) / (T - W + 1)) ** power``: the
    polynomial schedule of the MLPerf pipelines. A stream without an end keeps the rate.
    """
    t = tf.cast(step, tf.float32)
    warmup = tf.cast(settings.warmup, tf.float32)
    peak = tf.cast(settings.rate, tf.float32)
    after = peak
    if settings.total:
        left = 1.0 - (t - warmup) / (settings.total - warmup + 1.0)
        fall = tf.maximum(left, 0.0) ** tf.cast(settings.power, tf.float32)
        after = settings.end + (peak - settings.end) * fall
    return tf.where(t < warmup, peak * t / tf.maximum(warmup, 1.0), after)


class Step(NamedTuple):
    """What all variables of one step share.

    Attributes:
        settings: Hyper-parameters.
        rate: Scheduled rate, float32[].
        count: Steps so far, this one included, float32[].
    """

    settings: Settings
    rate: tf.Tensor
    count: tf.Tensor

    @property
    def beta1(self) -> Any:
        """Momentum."""
        return 1.0 - self.settings.one_minus_beta1

    def decayed(self, variable: tf.Variable, values: tf.Tensor) -> tf.Tensor:
        """Returns ``values + lambda w``, or ``values`` on the skip list."""
        return values + self.settings.weight_decay * variable if is_layer(variable) else values


#: Moves one variable by its gradient, with its slots.
Rule = Callable[[Step, tf.Variable, Sequence[tf.Variable], tf.Tensor], None]


def nesterov(
    step: Step, variable: tf.Variable, slots: Sequence[tf.Variable], gradient: tf.Tensor
) -> None:
    """``G = g + lambda w; v <- mu v + G; w <- w - eta (mu v + G)``: the rate outside the buffer."""
    (velocity,) = slots
    full = step.decayed(variable, gradient)
    velocity.assign(step.beta1 * velocity + full)
    variable.assign_sub(step.rate * (step.beta1 * velocity + full))


def lars(
    step: Step, variable: tf.Variable, slots: Sequence[tf.Variable], gradient: tf.Tensor
) -> None:
    """``v <- mu v + eta r (g + lambda w); w <- w - v``: the rate inside the buffer.

    ``r`` is ``eeta |w|`` over ``|g| + lambda |w|`` or ``|g + lambda w|``, and 1 where a norm is 0.
    """
    (velocity,) = slots
    full, rate, settings = step.decayed(variable, gradient), step.rate, step.settings
    if is_layer(variable):
        size = norm(variable)
        against = norm(gradient if settings.summed else full)
        below = against + settings.weight_decay * size if settings.summed else against
        rate *= trust(settings.eeta * size, below, against)
    velocity.assign(step.beta1 * velocity + rate * full)
    variable.assign_sub(velocity)


def adam(
    step: Step, variable: tf.Variable, slots: Sequence[tf.Variable], gradient: tf.Tensor
) -> None:
    """``w <- w - eta (m' / (sqrt(v') + eps) + lambda w)``: bias corrected, decay decoupled."""
    variable.assign_sub(step.rate * _adam_direction(step, variable, slots, gradient))


def lamb(
    step: Step, variable: tf.Variable, slots: Sequence[tf.Variable], gradient: tf.Tensor
) -> None:
    """``w <- w - eta (|w| / |u|) u`` with Adam's direction u, decay included; no clipping."""
    direction, rate = _adam_direction(step, variable, slots, gradient), step.rate
    if is_layer(variable):
        size = norm(direction)
        rate *= trust(norm(variable), size, size)
    variable.assign_sub(rate * direction)


def _adam_direction(
    step: Step, variable: tf.Variable, slots: Sequence[tf.Variable], gradient: tf.Tensor
) -> tf.Tensor:
    (mean, square), settings = slots, step.settings
    mean.assign(step.beta1 * mean + settings.one_minus_beta1 * gradient)
    square.assign(settings.beta2 * square + (1.0 - settings.beta2) * gradient * gradient)
    first = mean / (1.0 - tf.cast(step.beta1, tf.float32) ** step.count)
    second = square / (1.0 - tf.cast(settings.beta2, tf.float32) ** step.count)
    return step.decayed(variable, first / (tf.sqrt(second) + settings.epsilon))


#: Name -> the rule and its slots per variable.
RULES: dict[str, tuple[Rule, int]] = {
    "nesterov": (nesterov, 1), "lars": (lars, 1), "adam": (adam, 2), "lamb": (lamb, 2),
}  # fmt: skip


class RuleState(tf.Module):
    """Slots and step counter of a rule.

    Args:
        name: The rule, a name of ``RULES``.
        settings: Its hyper-parameters.
        variables: What it moves.
    """

    def __init__(self, name: str, settings: Settings, variables: Sequence[tf.Variable]) -> None:
        super().__init__(name=name)
        self._rule, n_slots = RULES[name]
        self._settings = settings
        self._targets = list(variables)
        self.step = tf.Variable(tf.zeros([], tf.int64), name="step")
        self.slots = [
            [tf.Variable(tf.zeros(v.shape), name="slot") for _ in range(n_slots)] for v in variables
        ]

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Assigns new values to the variables given at build time."""
        rate = scheduled_rate(self._settings, self.step)
        step = Step(self._settings, rate, tf.cast(self.step + 1, tf.float32))
        for variable, slots, gradient in zip(self._targets, self.slots, gradients, strict=True):
            self._rule(step, variable, slots, gradient)
        self.step.assign_add(1)


def is_layer(variable: tf.Variable) -> bool:
    """True for what has a trust ratio and decays: matrices of more than one row and column."""
    return variable.shape.rank > 1 and 1 not in variable.shape


def trust(above: tf.Tensor, below: tf.Tensor, against: tf.Tensor) -> tf.Tensor:
    """Returns ``above / below``, or 1 where ``above`` or ``against`` is 0, float32[]."""
    safe = (above > 0.0) & (against > 0.0)
    return tf.where(safe, above / tf.where(safe, below, 1.0), 1.0)


def norm(values: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm, float32[]."""
    # As a product of vectors; a plain sum is compiled to one addition after the other.
    flat = tf.reshape(values, [1, -1])
    return tf.sqrt(tf.reshape(tf.matmul(flat, flat, transpose_b=True), []))
