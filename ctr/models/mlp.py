"""Wide part beside a plain tower."""

from __future__ import annotations

from dataclasses import dataclass

from ctr.encoding import Layout
from ctr.models.deep import Deep
from ctr.models.wide_dcn import WideDeepModel


@dataclass(frozen=True)
class Mlp(Deep):
    """Wide & deep: ``wide(x) + MLP(embeddings, numerics)``, without crosses unless asked for.

    Paper: Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems".
    """

    def build(self, layout: Layout, n_tasks: int, seed: int) -> WideDeepModel:
        """Creates the variables; equal seeds give equal bits."""
        return WideDeepModel(self, layout, n_tasks, seed)
