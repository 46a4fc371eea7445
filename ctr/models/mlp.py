"""Wide part beside a plain tower."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Features, Forward
from ctr.encoding import Layout
from ctr.models.layers import flat_inputs, mlp, run, zero_head
from ctr.models.linear import WidePart


@dataclass(frozen=True)
class Mlp:
    """Wide & deep: ``wide(x) + MLP(embeddings, numerics)``.

    Paper: Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems".

    Attributes:
        dim: Embedding columns.
        hidden: Units of the hidden layers.
        activation: Their activation.
    """

    dim: int = 16
    hidden: tuple[int, ...] = (256, 128, 64)
    activation: str = "relu"

    def build(self, layout: Layout, n_tasks: int, seed: int) -> MlpModel:
        """Creates the variables; equal seeds give equal bits."""
        return MlpModel(self, layout, n_tasks, seed)


class MlpModel(tf.Module):
    """The built form of :class:`Mlp`."""

    def __init__(self, config: Mlp, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="mlp")
        self.dim = config.dim
        self.wide = WidePart(layout, n_tasks)
        self.hidden = mlp(config.hidden, config.activation, seed * 1000)
        self.head = zero_head(n_tasks)

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]; ``aux`` holds the last hidden layer."""
        del training
        last = run(self.hidden, flat_inputs(features))
        return Forward(self.wide(features) + self.head(last), {"hidden": last})
