"""Made-up words with topics: the texts of queries and ad titles, and their latent vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOPIC_WORDS = 20
COMMON_WORDS = 30
_ONSETS = "b d f g k l m n p r s t v z br dr gl kr pl st tr".split()
_VOWELS = "a e i o u ai eo".split()
_CODAS = ("", "", "n", "r", "l", "s")
#: Words per text: the last one of a query or title may be a common word.
QUERY_LENGTHS = (2, 4)
TITLE_LENGTHS = (4, 6)


@dataclass(frozen=True)
class Vocabulary:
    """Words and what they mean.

    Attributes:
        topics: float32[K, dim], unit direction of each topic.
        words: The spelling of each word; the common words come last.
        latent: float32[W, dim], meaning of each word.
        effect: float32[W], what the word in an ad's title adds to its click logit.
    """

    topics: np.ndarray
    words: np.ndarray
    latent: np.ndarray
    effect: np.ndarray


def build_vocabulary(n_topics: int, dim: int, rng: np.random.Generator) -> Vocabulary:
    """Draws ``TOPIC_WORDS`` words around each topic's direction, and a few common ones."""
    n_words = n_topics * TOPIC_WORDS + COMMON_WORDS
    topics = rng.standard_normal((n_topics, dim))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    latent = 0.4 * rng.standard_normal((n_words, dim)) / np.sqrt(dim)
    latent[: n_topics * TOPIC_WORDS] += np.repeat(topics, TOPIC_WORDS, axis=0)
    return Vocabulary(
        topics=topics.astype(np.float32),
        words=np.array(_spellings(n_words, rng)),
        latent=latent.astype(np.float32),
        effect=rng.normal(0.0, 0.2, n_words).astype(np.float32),
    )


def _spellings(n_words: int, rng: np.random.Generator) -> list[str]:
    """Returns distinct pronounceable words of two or three syllables."""
    words: dict[str, None] = {}
    while len(words) < n_words:
        word = "".join(
            str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) + str(rng.choice(_CODAS))
            for _ in range(int(rng.integers(2, 4)))
        )
        words[word] = None
    return list(words)


def draw_texts(
    vocabulary: Vocabulary, topic: np.ndarray, lengths: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one text for each entry of ``topic``.

    Args:
        vocabulary: The words to draw from.
        topic: int[N], the topic of each text.
        lengths: Fewest and most words of a text.
        rng: Source of randomness.

    Returns:
        The texts (str[N]), their latent vectors of about unit length (float32[N, dim]: the mean
        of their words') and the sum of their words' click effects (float32[N]).
    """
    low, high = lengths
    n = len(topic)
    ids = topic[:, None] * TOPIC_WORDS + (TOPIC_WORDS * rng.random((n, high)) ** 1.5).astype(int)
    common = len(vocabulary.words) - COMMON_WORDS + rng.integers(0, COMMON_WORDS, n)
    count = rng.integers(low, high + 1, n)
    ids[:, 0] = np.where(rng.random(n) < 0.5, common, ids[:, 0])
    used = np.arange(high) < count[:, None]
    spelled = np.where(used, vocabulary.words[ids], "")
    texts = np.array([" ".join(filter(None, row)) for row in spelled.tolist()])
    latent = (vocabulary.latent[ids] * used[..., None]).sum(axis=1) / count[:, None]
    effect = (vocabulary.effect[ids] * used).sum(axis=1)
    return texts, latent.astype(np.float32), effect.astype(np.float32)
