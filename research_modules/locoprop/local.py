"""Local learning of dense layers from one forward and backward pass.

With a layer's inputs X, preactivations z and backpropagated errors d (of the summed loss), the
local objective has, at any weights, the gradient ``X^T r`` with the residual::

    r(z') = w * (f(z') - f(z)) + gamma * d      (matching loss; f the activation)
    r(z') = w * (z' - z) + gamma * d            (squared loss)

where z' are the preactivations of the new weights and w the examples' weights. At the old weights
it is gamma times the gradient of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from ctr.api import DenseLayer, DenseState
from ctr.errors import ConfigError

MODES = ("matching", "squared")


@dataclass(frozen=True)
class LocalRule:
    """Settings of local learning; see the module's attributes of the same names."""

    mode: str = "matching"
    steps: int = 5
    gamma: float = 1.0
    floor: float = 0.25
    guard: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(
                f"locoprop: mode must be matching or squared, received {self.mode!r}."
            )
        if self.steps < 1:
            raise ConfigError(f"locoprop: steps must be at least 1, received {self.steps}.")
        if self.gamma < 0.0:
            raise ConfigError(f"locoprop: gamma must be at least 0, received {self.gamma}.")
        if not 0.0 <= self.floor <= 1.0:
            raise ConfigError(f"locoprop: floor must be from 0 to 1, received {self.floor}.")

    def factor(self, step: int) -> float:
        """Returns the size of a local step, relative to the first one."""
        return max(1.0 - step / self.steps, self.floor)


class LocalProblem:
    """One layer's local objective for one batch.

    Args:
        rule: The settings.
        layer: The layer in the forward pass.
        errors: float32[B, O], gradient of the batch's summed loss by the preactivations.
        weights: float32[B], what each example's loss was weighted by.
        offset: float32[B, O], what other parts of the model add before the activation, or None.
    """

    def __init__(
        self,
        rule: LocalRule,
        layer: DenseLayer,
        errors: tf.Tensor,
        weights: tf.Tensor,
        offset: tf.Tensor | None = None,
    ) -> None:
        self._matching = rule.mode == "matching"
        self.layer = layer
        self._offset = offset
        self._weights = weights[:, tf.newaxis]
        self._first = rule.gamma * errors
        self._old = self._output(layer.preactivation)

    def residual(self, preactivation: tf.Tensor) -> tf.Tensor:
        """Returns r, float32[B, O]."""
        return self._weights * (self._output(preactivation) - self._old) + self._first

    def gradients(self, residual: tf.Tensor) -> list[tf.Tensor]:
        """Returns the mean gradient by kernel and, if there is one, bias."""
        size = float(residual.shape[0])
        found = [tf.matmul(self.layer.inputs, residual, transpose_a=True) / size]
        if self.layer.bias is not None:
            found.append(tf.reduce_sum(residual, axis=0) / size)
        return found

    def first_gradients(self) -> list[tf.Tensor]:
        """Returns those at the old weights, for which no forward pass is needed."""
        return self.gradients(self._first)

    def forward(self) -> tf.Tensor:
        """Returns the preactivations float32[B, O] of the variables as they are now."""
        z = tf.matmul(self.layer.inputs, self.layer.kernel)
        return z if self.layer.bias is None else tf.nn.bias_add(z, self.layer.bias)

    def change(self, preactivation: tf.Tensor) -> tf.Tensor:
        """Returns how much the objective has changed since the old weights, float32[].

        It is the integral of the residual along the straight way, by Simpson's rule: exact for
        the squared loss and close for others, without one formula per activation.
        """
        old = self.layer.preactivation
        mean = self._first + 4.0 * self.residual(0.5 * (old + preactivation))
        mean += self.residual(preactivation)
        return tf.reduce_sum((preactivation - old) * mean) / 6.0

    def _output(self, preactivation: tf.Tensor) -> tf.Tensor:
        if not self._matching:
            return preactivation
        total = preactivation if self._offset is None else preactivation + self._offset
        return self.layer.activation(total)


class LocalState(tf.Module):
    """The optimizer of the layers, and what became of them.

    Args:
        rule: The settings.
        state: A dense optimizer's slots for ``variables``.
        variables: Kernel and bias of each layer, in the order of the forward pass.
        n_layers: Number of layers.
    """

    def __init__(
        self, rule: LocalRule, state: DenseState, variables: Sequence[tf.Variable], n_layers: int
    ) -> None:
        super().__init__(name="local")
        self.rule, self.state = rule, state
        self._variables = list(variables)
        self.fallbacks = tf.Variable(tf.zeros([n_layers], tf.int64), name="fallbacks")

    def learn(self, problems: Sequence[LocalProblem]) -> None:
        """Moves every layer by its own problem."""
        first: list[tf.Tensor] = []
        for step in range(self.rule.steps):
            # All gradients are formed before any layer moves.
            if step:
                found = [p.gradients(p.residual(p.forward())) for p in problems]
            else:
                found = [p.first_gradients() for p in problems]
            self._move([g for gradients in found for g in gradients], self.rule.factor(step))
            if not step:
                first = [variable.read_value() for variable in self._variables]
        if self.rule.guard and self.rule.steps > 1:
            self._fall_back(problems, first)

    def _move(self, gradients: Sequence[tf.Tensor], factor: float) -> None:
        before = [variable.read_value() for variable in self._variables]
        self.state.apply(gradients)
        if factor < 1.0:
            for variable, old in zip(self._variables, before, strict=True):
                variable.assign(old + factor * (variable - old))

    def _fall_back(self, problems: Sequence[LocalProblem], first: Sequence[tf.Tensor]) -> None:
        kept = [problem.change(problem.forward()) <= 0.0 for problem in problems]  # NaN: False
        per_variable = [
            keep
            for keep, problem in zip(kept, problems, strict=True)
            for _ in range(1 if problem.layer.bias is None else 2)
        ]
        for variable, keep, value in zip(self._variables, per_variable, first, strict=True):
            variable.assign(tf.where(keep, variable, value))
        self.fallbacks.assign_add(tf.cast(~tf.stack(kept), tf.int64))
