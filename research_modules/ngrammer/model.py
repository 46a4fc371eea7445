"""What a model makes of the pairs: normalised, merged with the tokens and pooled."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Features, Forward, ModelConfig, Rows
from ctr.encoding import Layout
from ctr.errors import ModuleError
from research_modules.ngrammer.codes import MARK
from research_modules.ngrammer.quantize import layer_norm

#: Pairs as further features; added to the tokens or in place of their last numbers, as in the
#: paper's layer; or the tokens alone, normalised as there, which is the control for these two.
MODES = ("append", "add", "concat", "stub")


@dataclass(frozen=True)
class WithPairs:
    """A model that sees code pairs of one bag.

    Attributes:
        base: The model.
        feature: The bag.
        mode: ``append``, ``add``, ``concat`` or ``stub``.
        width: Numbers of a pair's vector per head in ``concat``.
        norm: False leaves out the layer norm of the pairs.
    """

    base: ModelConfig
    feature: str
    mode: str
    width: int
    norm: bool

    @property
    def dim(self) -> int:
        """Embedding columns."""
        return self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> WithPairsModel:
        """Creates the variables; equal seeds give equal bits.

        Raises:
            ModuleError: the layout has no pairs of this bag at its end.
        """
        return WithPairsModel(self, layout, n_tasks, seed)


class WithPairsModel(tf.Module):
    """The built form of :class:`WithPairs`."""

    def __init__(self, config: WithPairs, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="with_pairs")
        self._config, self.dim = config, config.dim
        names = [slot.feature.name for slot in layout.slots]
        pairs = [i for i, name in enumerate(names) if name.startswith(f"{config.feature}{MARK}")]
        if not pairs or pairs[-1] != len(names) - 1:
            raise ModuleError(
                "ngrammer: the pairs are not the last features. Put ngrammer after other modules "
                "that add features."
            )
        self._tokens = names.index(config.feature)
        self._pairs, self._slots = pairs, layout.slots
        self._heads = len(pairs)
        appended = config.mode == "append"
        self._seen = layout if appended else Layout(layout.slots[: pairs[0]], layout.numeric)
        self.base = config.base.build(self._seen, n_tasks, seed)
        self.n_wide = getattr(self.base, "n_wide", n_tasks)
        part = config.dim if appended else config.dim // self._heads
        widths = {"append": config.dim, "add": part, "concat": config.width, "stub": 0}
        self._part, self._width = part, widths[config.mode]
        self.pair_norm = _Norm(self._heads, self._width) if self._width and config.norm else None
        self.token_norm = None if appended else _Norm(self._heads, part)
        for name in ("wide", "head"):
            if hasattr(self.base, name):
                setattr(self, name, getattr(self.base, name))

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns the base's logits float32[B, T]."""
        if self._config.mode == "append":
            vectors = tf.concat(
                [features.vectors[:, : self._pairs[0]], self._pooled_pairs(features)], axis=1
            )
            return self.base(features._replace(vectors=vectors), training)
        kept, stop = self._pairs[0], self._seen.n_slots
        merged = self._merged(features)[:, None]
        at = self._tokens
        parts = [features.vectors[:, :at], merged, features.vectors[:, at + 1 : kept]]
        rows = Rows(features.rows.embedding[:, :stop], features.rows.wide[:, :stop])
        own = features._replace(
            vectors=tf.concat(parts, axis=1), linear=features.linear[:, :kept],
            ids=features.ids[:, :stop], rows=rows,
        )  # fmt: skip
        return self.base(own, training)

    def _pair_vectors(self, features: Features) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns float32[B, L, N, C], 0 where there is no pair, and where there is one."""
        vectors, known = [], []
        for place in self._pairs:
            slot = self._slots[place]
            known.append(features.ids[:, slot.start : slot.stop] > 0)
            vectors.append(features.rows.embedding[:, slot.start : slot.stop, : self._width])
        stacked, mask = tf.stack(vectors, axis=2), tf.stack(known, axis=2)
        if self.pair_norm is not None:
            stacked = self.pair_norm(stacked)
        return tf.where(mask[..., None], stacked, 0.0), mask

    def _pooled_pairs(self, features: Features) -> tf.Tensor:
        vectors, mask = self._pair_vectors(features)
        return _pool(vectors, tf.cast(mask[..., None], tf.float32))

    def _merged(self, features: Features) -> tf.Tensor:
        slot = self._slots[self._tokens]
        mask = features.ids[:, slot.start : slot.stop] > 0
        tokens = features.rows.embedding[:, slot.start : slot.stop]
        assert self.token_norm is not None
        length = slot.stop - slot.start
        x = self.token_norm(tf.reshape(tokens, [-1, length, self._heads, self._part]))
        if self._config.mode != "stub":
            pairs, _ = self._pair_vectors(features)
            x = merge(x, pairs, self._config.mode)
        flat = tf.reshape(x, [-1, length, self.dim])
        return _pool(flat, tf.cast(mask[..., None], tf.float32))


def merge(tokens: tf.Tensor, pairs: tf.Tensor, mode: str) -> tf.Tensor:
    """Returns tokens and pairs as one vector of the tokens' width, float32[..., H].

    Args:
        tokens: float32[..., H].
        pairs: float32[..., C]; C = H to ``add``, C at most H to ``concat``.
        mode: ``add``, or ``concat``, which gives up the last C numbers of the tokens.
    """
    if mode == "add":
        return tokens + pairs
    kept = tokens.shape[-1] - pairs.shape[-1]
    return tf.concat([tokens[..., :kept], pairs], axis=-1)


def _pool(vectors: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the sum over a sequence divided by the root of its length."""
    count = tf.reduce_sum(mask, axis=1)
    return tf.reduce_sum(vectors * mask, axis=1) * tf.math.rsqrt(tf.maximum(count, 1.0))


class _Norm(tf.Module):
    """A layer norm with parameters of its own for each head."""

    def __init__(self, n_heads: int, width: int) -> None:
        super().__init__(name="norm")
        self.scale = tf.Variable(tf.zeros([n_heads, width]), name="scale")
        self.shift = tf.Variable(tf.zeros([n_heads, width]), name="shift")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return layer_norm(x, self.scale, self.shift)
