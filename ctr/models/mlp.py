"""Wide part beside a plain tower."""

from __future__ import annotations

from dataclasses import dataclass

from ctr.encoding import Layout
from ctr.models.deep import Deep
from ctr.models.wide_dcn import CrossedModel


@dataclass(frozen=True)
class Mlp(Deep):
    """Wide & deep: ``wide(x) + MLP(embeddings, numerics)``, without crosses unless asked for.

    Paper: Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems".
    """

    def build(self, layout: Layout, n_tasks: int, seed: int) -> CrossedModel:
        """Creates the variables; equal seeds give equal bits."""
        return CrossedModel(self, layout, n_tasks, seed)
