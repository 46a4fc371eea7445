"""Bottom tower on numerics, pairwise dot products of embeddings, top tower, and a wide part."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf
from tensorflow_recommenders.layers.feature_interaction import DotInteraction

from ctr.api import Features, Forward
from ctr.encoding import Layout
from ctr.models.layers import mlp, run, zero_head
from ctr.models.linear import WidePart


@dataclass(frozen=True)
class Dlrm:
    """DLRM with TensorFlow Recommenders' dot interaction.

    Paper: Naumov et al. 2019, "Deep Learning Recommendation Model" (arXiv:1906.00091), section 2.
    Deviations: a wide part is added, as in the default model.

    Attributes:
        dim: Embedding columns; the bottom tower ends in as many units.
        bottom: Hidden units of the bottom tower, before its last layer.
        top: Hidden units of the top tower.
        activation: Activation of all hidden layers.
    """

    dim: int = 16
    bottom: tuple[int, ...] = (64,)
    top: tuple[int, ...] = (128, 64)
    activation: str = "relu"

    def build(self, layout: Layout, n_tasks: int, seed: int) -> DlrmModel:
        """Creates the variables; equal seeds give equal bits."""
        return DlrmModel(self, layout, n_tasks, seed)


class DlrmModel(tf.Module):
    """The built form of :class:`Dlrm`."""

    def __init__(self, config: Dlrm, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="dlrm")
        self.dim = config.dim
        self.wide = WidePart(layout, n_tasks)
        has_numeric = bool(layout.numeric)
        bottom = (*config.bottom, config.dim) if has_numeric else ()
        self.bottom = mlp(bottom, config.activation, seed * 1000 + 500)
        # XLA needs the output's width to be known, hence no ragged self-interactions.
        self.interact = DotInteraction(self_interaction=False, skip_gather=True)
        self.top = mlp(config.top, config.activation, seed * 1000)
        self.head = zero_head(n_tasks)

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]; ``aux`` holds the last hidden layer."""
        del training
        parts = tf.unstack(features.vectors, axis=1)
        flat = list(parts)
        if self.bottom:
            dense = run(self.bottom, features.numeric)
            parts, flat = [*parts, dense], [*flat, dense]
        pairs = self.interact(parts)
        last = run(self.top, tf.concat([*flat, pairs], axis=1))
        return Forward(self.wide(features) + self.head(last), {"hidden": last})
