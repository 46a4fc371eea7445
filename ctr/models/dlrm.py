"""Bottom tower on numerics, pairwise dot products of embeddings, top tower, and a wide part."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf
from tensorflow_recommenders.layers.feature_interaction import DotInteraction

from ctr.api import DenseLayer, Features
from ctr.encoding import Layout
from ctr.models.deep import Deep
from ctr.models.layers import run, tower, tower_macs, zero_head
from ctr.models.linear import WidePart
from ctr.models.wide_deep import WideDeepModel


@dataclass(frozen=True)
class Dlrm(Deep):
    """DLRM with TensorFlow Recommenders' dot interaction.

    Paper: Naumov et al. 2019, "Deep Learning Recommendation Model" (arXiv:1906.00091), section 2.
    Deviations: a wide part is added, as in the default model. Cross layers, if asked for, stand
    between the embeddings and the top tower, beside the dot products.

    Attributes:
        hidden: Hidden units of the top tower.
        bottom: Hidden units of the bottom tower, before its last layer of ``dim`` units.
    """

    hidden: tuple[int, ...] = (128, 64)
    bottom: tuple[int, ...] = (64,)

    def build(self, layout: Layout, n_tasks: int, seed: int) -> DlrmModel:
        """Creates the variables; equal seeds give equal bits."""
        return DlrmModel(self, layout, n_tasks, seed)


class DlrmModel(WideDeepModel):
    """The built form of :class:`Dlrm`."""

    def __init__(self, config: Dlrm, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="dlrm")
        self.dim = config.dim
        self.wide = WidePart(layout, n_tasks)
        n_numeric = len(layout.numeric)
        bottom = (*config.bottom, config.dim) if n_numeric else ()
        self.below = tower(n_numeric, bottom, config.activation, config.beta, (), seed * 1000 + 500)
        # XLA needs the output's width to be known, hence no ragged self-interactions.
        self.interact = DotInteraction(self_interaction=False, skip_gather=True)
        n_vectors = layout.n_features + bool(n_numeric)
        self.cross = config.cross(n_vectors * config.dim, seed * 1000 + 750)
        self.n_tower_inputs = n_vectors * (config.dim + n_vectors)
        self.macs_beside = (
            tower_macs(n_numeric, bottom, ())
            + n_vectors * n_vectors * config.dim
            + config.cross_macs(n_vectors * config.dim)
            + n_numeric * n_tasks
        )
        self.hidden = config.tower(self.n_tower_inputs, seed * 1000)
        self.head = zero_head(n_tasks)

    def tower_inputs(self, features: Features) -> tuple[tf.Tensor, tuple[DenseLayer, ...]]:
        """Returns what the first hidden layer of the top tower reads, float32[B, C].

        With it come the dense layers that made it.
        """
        parts = tf.unstack(features.vectors, axis=1)
        layers: tuple[DenseLayer, ...] = ()
        if self.below:
            bottom, layers = run(self.below, features.numeric)
            parts = [*parts, bottom]
        crossed = self.cross(tf.concat(parts, axis=1), features.seen)
        return tf.concat([crossed, self.interact(parts)], axis=1), layers
