"""The default model: wide part, low-rank cross layers, then a tower."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ctr.api import DenseLayer, Features
from ctr.encoding import Layout
from ctr.models.deep import Deep
from ctr.models.layers import flat_inputs, flat_width, zero_head
from ctr.models.linear import WidePart
from ctr.models.wide_deep import WideDeepModel


@dataclass(frozen=True)
class WideDcn(Deep):
    """``wide(x) + head(MLP(cross(embeddings, numerics)))``, stacked.

    Paper: Wang et al. 2021, "DCN V2" (arXiv:2008.13535), eq. 1 and the low-rank form of eq. 2;
    placed before the tower as in "On the Factory Floor" (arXiv:2209.05310), section 4.3.
    Deviations: a wide part is added, because in one pass ids need many sights before their
    embeddings carry what a single weight learns at once.
    """

    cross_layers: int = 2

    def build(self, layout: Layout, n_tasks: int, seed: int) -> CrossedModel:
        """Creates the variables; equal seeds give equal bits."""
        return CrossedModel(self, layout, n_tasks, seed)


class CrossedModel(WideDeepModel):
    """The built form of a wide part beside cross layers and a tower."""

    def __init__(self, config: Deep, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="wide_deep")
        self.dim = config.dim
        width = flat_width(layout, config.dim)
        self.n_tower_inputs = width
        self.macs_beside = config.cross_macs(width) + len(layout.numeric) * n_tasks
        self.wide = WidePart(layout, n_tasks)
        self.below = []
        self.cross = config.cross(width, seed * 1000 + 500)
        self.hidden = config.tower(width, seed * 1000)
        self.head = zero_head(n_tasks)

    def tower_inputs(self, features: Features) -> tuple[tf.Tensor, tuple[DenseLayer, ...]]:
        """Returns what the first hidden layer reads, float32[B, C]; no dense layer made it."""
        return self.cross(flat_inputs(features), features.seen), ()
