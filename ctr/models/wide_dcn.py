"""The default model: wide part, low-rank cross layers, then a tower."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf
import tf_keras
from tensorflow_recommenders.layers.feature_interaction import Cross

from ctr.api import Features, Forward
from ctr.encoding import Layout
from ctr.models.layers import flat_inputs, mlp, run, zero_head
from ctr.models.linear import WidePart


@dataclass(frozen=True)
class WideDcn:
    """``wide(x) + head(MLP(cross(embeddings, numerics)))``, stacked.

    Paper: Wang et al. 2021, "DCN V2" (arXiv:2008.13535), eq. 1 and the low-rank form of eq. 2;
    placed before the tower as in "On the Factory Floor" (arXiv:2209.05310), section 4.3.
    Deviations: a wide part is added, because in one pass ids need many sights before their
    embeddings carry what a single weight learns at once.

    Attributes:
        dim: Embedding columns.
        cross_layers: Number of cross layers; 0 leaves the plain tower.
        cross_rank: Rank of each cross layer's matrix.
        hidden: Units of the hidden layers.
        activation: Their activation.
    """

    dim: int = 16
    cross_layers: int = 2
    cross_rank: int = 64
    hidden: tuple[int, ...] = (256, 128, 64)
    activation: str = "relu"

    def build(self, layout: Layout, n_tasks: int, seed: int) -> WideDcnModel:
        """Creates the variables; equal seeds give equal bits."""
        return WideDcnModel(self, layout, n_tasks, seed)


class WideDcnModel(tf.Module):
    """The built form of :class:`WideDcn`."""

    def __init__(self, config: WideDcn, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="wide_dcn")
        self.dim = config.dim
        width = layout.n_features * config.dim + len(layout.numeric)
        self.wide = WidePart(layout, n_tasks)
        self.cross = [
            Cross(
                projection_dim=config.cross_rank if config.cross_rank < width // 2 else None,
                kernel_initializer=tf_keras.initializers.GlorotNormal(seed * 1000 + 500 + i),
            )
            for i in range(config.cross_layers)
        ]
        self.hidden = mlp(config.hidden, config.activation, seed * 1000)
        self.head = zero_head(n_tasks)

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T]; ``aux`` holds the last hidden layer."""
        del training
        x0 = x = flat_inputs(features)
        for layer in self.cross:
            x = layer(x0, x)
        last = run(self.hidden, x)
        return Forward(self.wide(features) + self.head(last), {"hidden": last})
