"""Cross layers that set in gradually."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.errors import ConfigError
from ctr.models.deep import deep_part, with_deep_part
from ctr.module import ModuleInfo
from ctr.recipe import Recipe


@dataclass(frozen=True)
class DcnRamp:
    """Low-rank cross layers between embeddings and tower, ``x <- x + a * (cross(x0, x) - x)``.

    The factor ``a`` rises from 0 to 1 over the first examples: embeddings settle first, their
    products come later, which the paper credits with stability. As all else that depends on the
    examples seen, it goes on where it was when a run is resumed.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 4.3; Wang et al. 2021, "DCN V2"
    (arXiv:2008.13535), eq. 1 and 2.
    Deviations: shape and length of the ramp, number of layers and rank are not in the former
        paper. The cross has a bias, as in the latter.
    Reduces to: plain cross layers with ``ramp_examples = 0``; no cross layers at all before the
        first example, and with ``layers = 0``.

    Attributes:
        layers: Cross layers.
        rank: Rank of each; a matrix of less than twice that width stays whole.
        ramp_examples: Examples over which ``a`` rises.
        learned: True learns ``a`` per layer, from 0 (ReZero), in place of the ramp.
    """

    layers: int = 1
    rank: int = 32
    ramp_examples: int = 20_000
    learned: bool = False
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="dcn_ramp",
        paper="On the Factory Floor (arXiv:2209.05310), section 4.3; DCN V2 (arXiv:2008.13535)",
        extends=frozenset({"model"}),
    )

    def __post_init__(self) -> None:
        if min(self.layers, self.ramp_examples) < 0 or self.rank < 1:
            raise ConfigError(
                "dcn_ramp: layers and ramp_examples must be at least 0 and rank at least 1, "
                f"received {self.layers}, {self.ramp_examples} and {self.rank}."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with these cross layers in its model."""
        deep = replace(
            deep_part(recipe.model, self.info.name),
            cross_layers=self.layers,
            cross_rank=self.rank,
            cross_ramp=0 if self.learned else self.ramp_examples,
            cross_rezero=self.learned,
        )
        return replace(recipe, model=with_deep_part(recipe.model, deep))
