"""What the deep models have in common, so that a change of one part applies to all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import tensorflow as tf
import tf_keras

from ctr.api import Features, Forward, ModelConfig
from ctr.errors import ConfigError, ModuleError
from ctr.models.activations import check_activation
from ctr.models.cross import CrossLayers
from ctr.models.layers import tower


@dataclass(frozen=True)
class Deep:
    """Cross layers on the inputs, then a tower of hidden layers; each model adds what it needs.

    Attributes:
        dim: Embedding columns.
        hidden: Units of the hidden layers.
        activation: Their activation, a name of ``ctr.models.activations``.
        beta: Width of the bend of a smooth activation; ReLU and tanh have none.
        ranks: One rank per hidden layer: its matrix is the product of two thin ones with nothing
            in between. 0, or a rank that would save nothing, leaves a layer whole.
        cross_layers: Number of cross layers before the tower; 0 for none.
        cross_rank: Rank of each cross layer's matrix.
        cross_ramp: Examples over which the crosses grow from nothing to their full size; 0 has
            them there from the start.
        cross_rezero: True scales each cross by a learned number that starts at 0.
    """

    dim: int = 16
    hidden: tuple[int, ...] = (256, 128, 64)
    activation: str = "relu"
    beta: float = 1.0
    ranks: tuple[int, ...] = ()
    cross_layers: int = 0
    cross_rank: int = 64
    cross_ramp: int = 0
    cross_rezero: bool = False

    def __post_init__(self) -> None:
        check_activation(self.activation, self.beta)
        if self.dim < 1 or any(n < 1 for n in self.hidden):
            raise ConfigError(
                f"dim and all hidden units must be at least 1, received {self.dim} and "
                f"{self.hidden}."
            )
        if self.ranks and (len(self.ranks) != len(self.hidden) or min(self.ranks) < 0):
            raise ConfigError(
                f"ranks needs one number per hidden layer, 0 for a whole layer; received "
                f"{self.ranks} for the layers {self.hidden}."
            )
        if min(self.cross_layers, self.cross_ramp) < 0 or self.cross_rank < 1:
            raise ConfigError(
                "cross_layers and cross_ramp must be at least 0 and cross_rank at least 1, "
                f"received {self.cross_layers}, {self.cross_ramp} and {self.cross_rank}."
            )
        if self.cross_ramp and self.cross_rezero:
            raise ConfigError(
                "cross_ramp and cross_rezero are two ways to let the crosses grow: set one of them."
            )

    @property
    def layer_activation(self) -> str:
        """Activation of the hidden layers, which a forward pass lists one by one."""
        return self.activation

    def tower(self, n_inputs: int, seed: int) -> list[tf_keras.layers.Dense]:
        """Returns the hidden layers for inputs of ``n_inputs`` numbers.

        Raises:
            ConfigError: ranks are given, and none of them saves anything.
        """
        return tower(n_inputs, self.hidden, self.activation, self.beta, self.ranks, seed)

    def cross(self, n_inputs: int, seed: int) -> CrossLayers:
        """Returns the cross layers for inputs of ``n_inputs`` numbers."""
        rank = self._cross_rank(n_inputs)
        return CrossLayers(self.cross_layers, rank, self.cross_ramp, self.cross_rezero, seed)

    def cross_macs(self, n_inputs: int) -> int:
        """Returns the multiply-adds per example of the matrices of the cross layers."""
        rank = self._cross_rank(n_inputs)
        return self.cross_layers * (2 * rank if rank else n_inputs) * n_inputs

    def _cross_rank(self, n_inputs: int) -> int | None:
        return self.cross_rank if self.cross_rank < n_inputs // 2 else None


@runtime_checkable
class Towered(Protocol):
    """A built deep model that can be run up to its tower, and on from it.

    Attributes:
        n_tower_inputs: Numbers per example that the first hidden layer reads, C.
        macs_beside: Multiply-adds per example of all matrices but those of tower and head.
    """

    n_tower_inputs: int
    macs_beside: int

    def tower_inputs(self, features: Features) -> tf.Tensor:
        """Returns what the first hidden layer reads, float32[B, C]."""
        ...

    def outputs(self, features: Features, last: tf.Tensor) -> Forward:
        """Returns the logits for a last hidden layer float32[B, H]."""
        ...


def deep_part(model: ModelConfig, asked_by: str) -> Deep:
    """Returns the deep model that a configuration is or, as a wrapper, holds in its ``base``.

    Raises:
        ModuleError: there is none.
    """
    inner: Any = model
    while not isinstance(inner, Deep) and hasattr(inner, "base"):
        inner = inner.base
    if not isinstance(inner, Deep):
        raise ModuleError(
            f"module {asked_by!r} changes the hidden layers, but the model "
            f"{type(inner).__name__} has none. Use it with wide_dcn, mlp or dlrm."
        )
    return inner


def with_deep_part(model: Any, deep: Deep) -> Any:
    """Returns the configuration with its deep model exchanged, through any wrappers."""
    if isinstance(model, Deep):
        return deep
    return replace(model, base=with_deep_part(model.base, deep))
