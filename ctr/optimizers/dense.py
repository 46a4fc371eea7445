"""Dense optimizers: any Keras optimizer by name, applied inside the compiled loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tensorflow as tf
import tf_keras

from ctr.api import DenseOptimizer, RowOptimizer
from ctr.errors import ConfigError, nearest
from ctr.optimizers.rows import AdaGrad


def _known() -> dict[str, type]:
    from tensorflow_recommenders.experimental.optimizers import ClippyAdagrad

    known = {
        name: cls
        for name, cls in vars(tf_keras.optimizers).items()
        if isinstance(cls, type) and issubclass(cls, tf_keras.optimizers.Optimizer)
    }
    known.pop("Optimizer", None)
    return {**known, "ClippyAdagrad": ClippyAdagrad}


@dataclass(frozen=True)
class KerasOptimizer:
    """A Keras 2 optimizer (or TFRS' ``ClippyAdagrad``) by class name.

    Attributes:
        name: Class in ``tf_keras.optimizers``: Adagrad, Adam, AdamW, Nadam, Ftrl, SGD, ...
        rate: Learning rate.
        initial_accumulator: First value of the accumulator where the class has one.
        clip_norm: Bound on the global gradient norm; 0 leaves gradients alone.
        weight_decay: Decoupled weight decay, for the classes that take it.
        momentum: Heavy-ball momentum, for SGD and RMSprop.
    """

    name: str = "Adagrad"
    rate: float = 0.02
    initial_accumulator: float = 1e-6
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.0

    def build(self, variables: Sequence[tf.Variable]) -> KerasState:
        """Creates the slots.

        Raises:
            ConfigError: there is no optimizer of this name, or it takes no weight decay or
                momentum.
        """
        known = _known()
        if self.name not in known:
            raise ConfigError(f"no optimizer {self.name!r}: {nearest(self.name, known)}")
        options: dict[str, object] = {"learning_rate": self.rate, "jit_compile": False}
        if self.name in ("Adagrad", "ClippyAdagrad", "Ftrl"):
            options["initial_accumulator_value"] = self.initial_accumulator
        if self.name == "ClippyAdagrad":
            options.pop("jit_compile")
        if self.clip_norm:
            options["global_clipnorm"] = self.clip_norm
        if self.weight_decay:
            options["weight_decay"] = self.weight_decay
        if self.momentum:
            options["momentum"] = self.momentum
        try:
            return KerasState(known[self.name](**options), variables)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"optimizer {self.name}: {error}") from None


class KerasState(tf.Module):
    """The built form of :class:`KerasOptimizer`; ``optimizer`` is Keras' own."""

    def __init__(self, optimizer: tf_keras.optimizers.Optimizer, variables: Sequence) -> None:
        super().__init__(name="keras_optimizer")
        self.optimizer = optimizer
        self._targets = list(variables)
        self.optimizer.build(self._targets)
        # A Keras optimizer is no tf.Module; named here, its slots count as ours.
        self.slots = list(self.optimizer.variables)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Moves the variables, in the order in which they were given."""
        self.optimizer.apply_gradients(zip(gradients, self._targets, strict=True))


@dataclass(frozen=True)
class Optimizers:
    """Which optimizer moves which part of a model.

    Attributes:
        embedding: The embedding columns of the fused table; sees the gradient of the summed loss.
        linear: The wide columns of the fused table; likewise.
        head: Bias, numeric weights and feature gains; sees the gradient of the mean loss.
        tower: All other dense variables; likewise.
    """

    embedding: RowOptimizer = field(default_factory=lambda: AdaGrad(0.1))
    linear: RowOptimizer = field(default_factory=lambda: AdaGrad(0.15, 1.0, split_rate=True))
    head: DenseOptimizer = field(default_factory=lambda: KerasOptimizer(rate=0.2))
    tower: DenseOptimizer = field(default_factory=KerasOptimizer)
