"""The feature transform: codes of the tokens of one bag, and the table rows of their pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ctr.api import Batch
from ctr.encoding import Layout, Slot
from ctr.encoding.graph import to_rows
from ctr.errors import ModuleError, nearest
from ctr.hashing import salt64
from ctr.schema import Feature
from ctr.table import Table
from research_modules.ngrammer.quantize import (
    moved_centroids,
    nearest_codes,
    pair_ids,
    pair_rows,
)

#: Tokens are quantised by their embeddings, by nothing (all pairs), or at random (the control).
SOURCES = ("vq", "raw", "placebo")
#: Separates the name of a bag from the number of a head.
MARK = "__pair"


@dataclass(frozen=True)
class PairCodes:
    """Appends, for each head, a bag of the rows of a sequence's code pairs.

    A token gets its code from its embedding once it has been seen ``mature`` times, and anew each
    time that number doubles: early embeddings say little, and every change of a code turns the
    rows of its pairs into something else. Until then its pairs are left out.

    Attributes:
        feature: The bag whose tokens stand in order.
        heads: Parts of the embedding with codes of their own, N.
        codes: Codes per head, K.
        rows: Rows that the pairs of one head are hashed to, M; they share the fused table.
        source: ``vq``, ``raw`` or ``placebo``.
        decay: Share of a centroid that a batch leaves.
        start: Examples before the first token is given a code.
        freeze: Examples after which centroids and given codes stay; 0 never.
        mature: Sights that a token needs.
        patience: Batches without any token after which a centroid is put onto one.
    """

    feature: str
    heads: int
    codes: int
    rows: int
    source: str
    decay: float
    start: int
    freeze: int
    mature: int
    patience: int

    def extend(self, layout: Layout) -> Layout:
        """Returns the layout with one more bag per head.

        Raises:
            ModuleError: there is no such bag.
        """
        own = self.slot(layout)
        slots, at = list(layout.slots), layout.n_slots
        for head in range(self.heads):
            length = own.stop - own.start
            bag = Feature(f"{self.feature}{MARK}{head}", kind="bag", max_length=length)
            slots.append(Slot(bag, at, at + length))
            at += length
        return Layout(tuple(slots), layout.numeric)

    def slot(self, layout: Layout) -> Slot:
        """Returns the place of the bag."""
        bags = {slot.feature.name: slot for slot in layout.bags}
        if self.feature not in bags:
            raise ModuleError(
                f"ngrammer: the stream has no bag {self.feature!r}: "
                f"{nearest(self.feature, bags) if bags else 'it has no bags'}. Set feature to a "
                "sequence of tokens."
            )
        return bags[self.feature]

    def build(self, layout: Layout, n_rows: int, dim: int, seed: int) -> PairCodesState:
        """Creates centroids and codes.

        Raises:
            ModuleError: an embedding cannot be cut into this many parts.
        """
        return PairCodesState(self, self.slot(layout), n_rows, dim, seed)


class PairCodesState(tf.Module):
    """The built form of :class:`PairCodes`."""

    def __init__(self, config: PairCodes, slot: Slot, n_rows: int, dim: int, seed: int) -> None:
        super().__init__(name="pair_codes")
        if dim % config.heads or dim // config.heads < 1:
            raise ModuleError(
                f"ngrammer: an embedding of {dim} numbers cannot be cut into {config.heads} heads. "
                "Set heads to a divisor of model.dim."
            )
        self._config, self._slot, self._n_rows, self._seed = config, slot, n_rows, seed
        self._salt = salt64(f"{config.feature}{MARK}")
        self._width = dim // config.heads
        shape = [config.heads, config.codes]
        learned = config.source == "vq"
        self.centroids = tf.Variable(
            tf.zeros([*shape, self._width]), trainable=False, name="centroids"
        )
        # As if unused for long: the first batch puts all of them onto tokens.
        idle = tf.fill(shape, config.patience + 1)
        self.idle = tf.Variable(idle, trainable=False, name="idle")
        self.usage = tf.Variable(tf.zeros(shape), trainable=False, name="usage")
        kept = n_rows if learned else 1
        self.codes = tf.Variable(
            -tf.ones([kept, config.heads], tf.int32), trainable=False, name="codes"
        )
        self.sights = tf.Variable(tf.zeros([kept], tf.int32), trainable=False, name="sights")
        self.given = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="given")
        self.changed = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="changed")
        self.steps = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="steps")

    def __call__(
        self, ids: tf.Tensor, numeric: tf.Tensor, table: Table
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ``ids`` with the rows of the pairs behind them; row 0 where there is no pair."""
        del table
        config = self._config
        tokens = ids[:, self._slot.start : self._slot.stop]
        codes, n_codes = self._codes_of(tokens)
        known = (tokens > 0) & tf.reduce_all(codes >= 0, axis=2)
        before = tf.pad(known[:, :-1], [[0, 0], [1, 0]], constant_values=True)
        pairs = pair_ids(tf.maximum(codes, 0), n_codes)
        hashed = pair_rows(pairs, config.rows)
        head = tf.range(config.heads, dtype=tf.int64) * config.rows
        rows = to_rows(tf.cast(hashed + head, tf.uint64), self._salt, self._n_rows)
        rows = tf.where((known & before)[..., None], rows, 0)
        length = self._slot.stop - self._slot.start
        flat = tf.reshape(tf.transpose(rows, [0, 2, 1]), [-1, config.heads * length])
        return tf.concat([ids, flat], axis=1), numeric

    def learn(self, batch: Batch, table: Table) -> None:
        """Moves centroids and gives codes, after the batch was predicted and learned.

        Args:
            batch: The batch; rows of weight 0 do not count.
            table: Where the tokens' embeddings are.
        """
        if self._config.source != "vq":
            return
        config = self._config
        tokens = batch.ids[:, self._slot.start : self._slot.stop]
        counted = tf.reshape((tokens > 0) & (batch.weights > 0.0)[:, None], [-1])
        tokens = tf.reshape(tokens, [-1])
        heads = tf.reshape(tf.gather(table.embedding, tokens), [-1, config.heads, self._width])
        ready = batch.seen >= config.start
        open_ = ready & (batch.seen < config.freeze) if config.freeze else ready
        # Drawing tokens takes a sort: only when there is a centroid to be put onto one.
        due = open_ & tf.reduce_any(self.idle > config.patience)
        tf.cond(due, lambda: self._reseed(heads, counted), lambda: None)
        codes = nearest_codes(heads, self.centroids)
        moved, used = moved_centroids(
            self.centroids, heads, codes, tf.cast(counted, tf.float32), config.decay
        )
        unused = used < 0.5
        # The reference lets them shrink to the origin, where they would catch other tokens.
        kept = tf.where(unused[..., None], self.centroids, moved)
        self.centroids.assign(tf.where(open_, kept, self.centroids))
        idle = tf.where(unused, self.idle + 1, 0)
        self.idle.assign(tf.where(open_, idle, self.idle))
        self.usage.assign(0.999 * self.usage + tf.where(ready, used, 0.0))
        self._give(tokens, codes, counted, ready, open_)
        self.steps.assign_add(1)

    def report(self) -> dict[str, object]:
        """Returns how codes are used, how often given ones change, and how pairs collide."""
        config = self._config
        pairs = np.arange(config.codes**2, dtype=np.int64)
        stacked = tf.constant(np.repeat(pairs[:, None], config.heads, axis=1))
        rows = pair_rows(stacked, config.rows).numpy()
        distinct = [len(np.unique(rows[:, head])) / len(pairs) for head in range(config.heads)]
        share = self.usage.numpy() / np.maximum(self.usage.numpy().sum(axis=1, keepdims=True), 1e-9)
        entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
        given = max(int(self.given.numpy()), 1)
        return {
            "code_perplexity": np.exp(entropy).tolist(),
            "churn": int(self.changed.numpy()) / given,
            "codes_given": int(self.given.numpy()),
            "coded_rows": int((self.codes.numpy()[:, 0] >= 0).sum()),
            "pair_collisions": [1.0 - part for part in distinct],
        }

    def _codes_of(self, tokens: tf.Tensor) -> tuple[tf.Tensor, int]:
        """Returns codes int64[B, L, N], -1 where there is none, and what all of them are below."""
        heads = self._config.heads
        if self._config.source == "vq":
            return tf.cast(tf.gather(self.codes, tokens), tf.int64), self._config.codes
        every = tf.repeat(tf.cast(tokens, tf.int64)[..., None], heads, axis=2)
        if self._config.source == "raw":
            return every, self._n_rows
        mixed = tf.cast(every * heads + tf.range(heads, dtype=tf.int64), tf.uint64)
        drawn = to_rows(mixed, salt64("placebo"), self._config.codes + 1)
        return tf.cast(drawn, tf.int64) - 1, self._config.codes

    def _reseed(self, heads: tf.Tensor, counted: tf.Tensor) -> None:
        config = self._config
        key = tf.stack([tf.constant(self._seed, tf.int64), self.steps])
        n_codes = min(config.codes, counted.shape[0])
        shape = [config.heads, counted.shape[0]]
        # XLA's own choice of generator takes eight times as long on CPUs.
        order = tf.random.stateless_uniform(shape, key, alg="philox")
        found = tf.math.top_k(tf.where(counted, order, -1.0), n_codes)
        places = tf.pad(found.indices, [[0, 0], [0, config.codes - n_codes]])
        real = tf.pad(found.values >= 0.0, [[0, 0], [0, config.codes - n_codes]])
        tokens = tf.gather(tf.transpose(heads, [1, 0, 2]), places, batch_dims=1)
        dead = (self.idle > config.patience) & real
        self.centroids.assign(tf.where(dead[..., None], tokens, self.centroids))
        self.idle.assign(tf.where(dead, 0, self.idle))

    def _give(
        self, tokens: tf.Tensor, codes: tf.Tensor, counted: tf.Tensor, ready: tf.Tensor,
        open_: tf.Tensor,
    ) -> None:  # fmt: skip
        before = tf.gather(self.sights, tokens)
        self.sights.scatter_add(tf.IndexedSlices(tf.cast(counted, tf.int32), tokens))
        after = tf.gather(self.sights, tokens)
        old = tf.gather(self.codes, tokens)
        new = old[:, 0] < 0
        due = new | ((_doublings(after) > _doublings(before)) & open_)
        due &= counted & ready & (after >= self._config.mature)
        # All occurrences of a token write the same codes.
        self.codes.scatter_update(tf.IndexedSlices(tf.where(due[:, None], codes, old), tokens))
        again = due & ~new
        self.given.assign_add(tf.math.count_nonzero(again))
        self.changed.assign_add(tf.math.count_nonzero(again & tf.reduce_any(codes != old, axis=1)))


def _doublings(sights: tf.Tensor) -> tf.Tensor:
    """Returns floor(log2) of counts int32[n] of at least 1, and 0 for 0."""
    powers = tf.constant([2**i for i in range(1, 31)], tf.int32)
    return tf.reduce_sum(tf.cast(sights[:, None] >= powers, tf.int32), axis=1)
