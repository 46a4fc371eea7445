"""A small stream whose click probabilities are known, learned by the real learner.

Six fields of 500 ids each, drawn with probability ``(i + 1)^-1.1``; the click's logit is a
constant, a weight per id, and an inner product per pair of fields. What a recipe loses beyond the
entropy of the truth is due to the recipe alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Chunk
from ctr.learner import Learner
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema

FIELDS, IDS, LATENT = 6, 500, 4
#: Rows that a recipe's table needs to hold every id in a row of its own.
TABLE_ROWS = FIELDS * IDS + 1
SCHEMA = Schema("planted", tuple(Feature(f"f{i}") for i in range(FIELDS)), (Label("click"),))


@dataclass(frozen=True)
class Planted:
    """Examples in order.

    Attributes:
        ids: int32[n, 6], rows of the table; no two ids share one.
        labels: float32[n].
        probs: float32[n], the true probabilities.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.float32]
    probs: NDArray[np.float32]

    @property
    def entropy(self) -> NDArray[np.float64]:
        """Least expected loss of each example in nats, float64[n]."""
        p = self.probs.astype(np.float64)
        return -p * np.log(p) - (1.0 - p) * np.log1p(-p)


def planted_stream(n: int, seed: int, shift_at: int = 0) -> Planted:
    """Draws examples.

    Args:
        n: Number of examples.
        seed: Decides everything.
        shift_at: Example from which on half of the ids, drawn at random, have new effects; 0 for
            none.
    """
    rng = np.random.default_rng(seed)
    share = np.arange(1, IDS + 1) ** -1.1
    drawn = rng.choice(IDS, size=(n, FIELDS), p=share / share.sum())
    flat = drawn + np.arange(FIELDS) * IDS
    logits = np.empty(n)
    weights, vectors = _effects(rng)
    parts = [slice(0, shift_at), slice(shift_at, n)] if shift_at else [slice(0, n)]
    for number, part in enumerate(parts):
        if number:
            changed = rng.random(FIELDS * IDS) < 0.5
            new_weights, new_vectors = _effects(rng)
            weights = np.where(changed, new_weights, weights)
            vectors = np.where(changed[:, None], new_vectors, vectors)
        own = vectors[flat[part]]
        # The sum over pairs of fields is half of what the square of the sum has too much.
        pairs = 0.5 * ((own.sum(1) ** 2).sum(1) - (own**2).sum((1, 2)))
        logits[part] = -1.9 + weights[flat[part]].sum(1) + pairs
    probs = np.clip(1.0 / (1.0 + np.exp(-logits)), 1e-6, 1.0 - 1e-6)
    labels = rng.random(n) < probs
    return Planted((flat + 1).astype(np.int32), labels.astype(np.float32), probs.astype(np.float32))


def _effects(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = FIELDS * IDS
    return 0.5 * rng.normal(size=n), 0.5 * rng.normal(size=(n, LATENT))


def filled_chunks(
    ids: NDArray[np.int32], labels: NDArray[np.float32], shape: tuple[int, int]
) -> list[Chunk]:
    """Cuts examples into launches; the rest, which does not fill one, is left out.

    Args:
        ids: int32[n, S], rows of the table.
        labels: float32[n, T].
        shape: Batches of a launch and examples of a batch.
    """
    n = len(ids) // (shape[0] * shape[1]) * shape[0] * shape[1]
    ids = ids[:n].reshape(-1, *shape, ids.shape[1])
    labels = labels[:n].reshape(-1, *shape, labels.shape[1])
    weights, numeric = np.ones(ids.shape[:3], np.float32), np.zeros((*ids.shape[:3], 0), np.float32)
    return [Chunk(*part, {}) for part in zip(ids, numeric, labels, weights, strict=True)]


def progressive_losses(
    recipe: Recipe, stream: Planted, seed: int, learner: Learner | None = None
) -> NDArray[np.float64]:
    """Predicts and learns the stream once, in order.

    Args:
        recipe: What to learn with; its table has at least ``TABLE_ROWS`` rows.
        stream: The examples.
        seed: Decides the initial values.
        learner: A fresh learner of the recipe, where the caller wants to look at it afterwards.

    Returns:
        float64[m], log loss of each progressive prediction minus the entropy of the truth; rows
        that do not fill a launch are left out.
    """
    learner = learner or Learner(recipe, SCHEMA, seed)
    chunks = filled_chunks(stream.ids, stream.labels[:, None], learner.chunk_shape)
    probs = np.concatenate([learner.learn(chunk).reshape(-1) for chunk in chunks])
    p = np.clip(probs.astype(np.float64), 1e-7, 1.0 - 1e-7)
    found = -np.where(stream.labels[: len(p)] > 0.5, np.log(p), np.log1p(-p))
    return found - stream.entropy[: len(found)]
