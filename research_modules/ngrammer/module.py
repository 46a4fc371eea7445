"""The research module: N-Grammer on one bag of a stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.errors import ConfigError, nearest
from ctr.module import ModuleInfo
from ctr.recipe import Recipe
from research_modules.ngrammer.codes import SOURCES, PairCodes
from research_modules.ngrammer.model import MODES, WithPairs


@dataclass(frozen=True)
class NGrammer:
    """Quantises the tokens of a sequence and gives the model pairs of neighbouring codes.

    Each token's embedding is cut into ``heads`` parts, each part replaced by the number of its
    nearest centroid, and two neighbours' numbers make an id. Words that act alike share codes, so
    that pairs never seen before find rows that have been learned from others.

    Paper: Roy et al. 2022, "N-Grammer: Augmenting Transformers with latent n-grams"
        (arXiv:2207.06366), section 2, equations 1 to 4; hash and decay as in the public code.
    Deviations: pairs share the rows of the fused table with all other ids; ``append`` leaves the
        tokens as they are and gives the pairs to the model as further features; a token's code is
        given after ``mature`` sights and renewed whenever their number doubles, not at each step;
        centroids without tokens are put onto some instead of shrinking to the origin; nothing is
        quantised before ``start``.
    Reduces to: the recipe without it where no token ever gets a code, but for parameters of its
        own; with ``source = "raw"``, hashed pairs of tokens; ``mode = "stub"`` is the layer
        without pairs.

    Attributes:
        feature: A bag whose tokens stand in order (with ``ngrams = 1``).
        heads: Parts of the embedding, N.
        codes: Codes per part, K.
        rows: Rows of each head's pairs, M; 0 takes the larger of 4 K^2 and 16,384.
        mode: ``append``, ``add``, ``concat`` or ``stub``.
        width: Numbers of a pair's vector in ``concat``, at least 4: a norm over 2 is a sign.
        norm: False leaves out the layer norm of the pairs.
        source: ``vq``; or the controls ``raw`` (pairs of tokens) and ``placebo`` (random codes).
        decay: Share of a centroid that a batch leaves.
        start: Examples before tokens are given codes.
        freeze: Examples after which centroids and given codes stay; 0 never.
        mature: Sights that a token needs.
        patience: Batches without a token after which a centroid is put onto one.
    """

    feature: str = "query_text"
    heads: int = 2
    codes: int = 16
    rows: int = 0
    mode: str = "append"
    width: int = 4
    norm: bool = True
    source: str = "vq"
    decay: float = 0.99
    start: int = 0
    freeze: int = 0
    mature: int = 8
    patience: int = 200

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="ngrammer",
        paper="N-Grammer (arXiv:2207.06366), section 2",
        extends=frozenset({"features", "model"}),
    )

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, MODES), ("source", self.source, SOURCES)):
            if value not in known:
                raise ConfigError(f"ngrammer: {name} {value!r}: {nearest(value, known)}")
        if min(self.heads, self.mature, self.patience) < 1 or self.codes < 2:
            raise ConfigError(
                "ngrammer: heads, mature and patience must be at least 1 and codes at least 2, "
                f"received {self.heads}, {self.mature}, {self.patience} and {self.codes}."
            )
        if min(self.rows, self.start, self.freeze) < 0:
            raise ConfigError(
                "ngrammer: rows, start and freeze must be at least 0, received "
                f"{self.rows}, {self.start} and {self.freeze}."
            )
        if self.freeze and self.freeze <= self.start:
            raise ConfigError(
                f"ngrammer: freeze must be 0 or above start, received {self.freeze} and "
                f"{self.start}. Nothing would ever be learned."
            )
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError(
                f"ngrammer: decay must be at least 0 and below 1, received {self.decay}."
            )
        if self.width < 4:
            raise ConfigError(
                f"ngrammer: width must be at least 4, received {self.width}. A layer norm over "
                "fewer numbers leaves little but a sign."
            )

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with pairs among the features of its model.

        Raises:
            ConfigError: an embedding is too narrow for the mode.
        """
        dim, part = recipe.model.dim, recipe.model.dim // self.heads
        least = {"append": 4, "add": 4 * self.heads, "concat": self.width * self.heads}
        if self.mode in least and dim < least[self.mode]:
            raise ConfigError(
                f"ngrammer: mode {self.mode} with {self.heads} heads needs model.dim of at least "
                f"{least[self.mode]}, received {dim} ({part} a head)."
            )
        rows = self.rows or max(4 * self.codes**2, 1 << 14)
        transform = PairCodes(
            self.feature, self.heads, self.codes, rows, self.source, self.decay, self.start,
            self.freeze, self.mature, self.patience,
        )  # fmt: skip
        model = WithPairs(recipe.model, self.feature, self.mode, self.width, self.norm)
        return replace(recipe, features=(*recipe.features, transform), model=model)
