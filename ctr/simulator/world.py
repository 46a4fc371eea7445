"""The fixed facts of a simulated ad world: users, queries, ads with their lives, effects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.simulator.config import WorldConfig
from ctr.simulator.vocabulary import (
    QUERY_LENGTHS,
    TITLE_LENGTHS,
    Vocabulary,
    build_vocabulary,
    draw_texts,
)

COUNTRIES = ("us", "in", "br", "de", "jp", "fr", "gb", "mx", "kr", "pl")
DEVICES = ("mobile", "desktop", "tablet")
DEVICE_EFFECTS = np.array([0.1, 0.0, -0.15], np.float32)
HOUR_S = 3600.0
#: Births happen on a grid of whole hours, coarser only for very long streams.
_MAX_CELLS = 1000


@dataclass(frozen=True)
class Ads:
    """Every ad that lives at some time; ``A`` of them. Times are seconds since the start.

    Attributes:
        birth_s: float64[A], negative for ads born before the stream starts.
        death_s: float64[A], when its successor takes over; infinite if none does.
        topic: int32[A].
        advertiser: int32[A].
        advertiser_age_d: float32[A], age of the advertiser's account at the start, in days.
        price: float32[A], price of the advertised thing.
        bid: float32[A], mean bid.
        title: str[A].
        latent: float32[A, dim].
        effect: float32[A], what the ad adds to the click logit at its birth.
        trend: float32[A], change of that per day of age.
        occupant: int32[cells, n_ads], the ad alive in each campaign slot, per cell of time.
        cell_s: Length of a cell of time.
    """

    birth_s: np.ndarray
    death_s: np.ndarray
    topic: np.ndarray
    advertiser: np.ndarray
    advertiser_age_d: np.ndarray
    price: np.ndarray
    bid: np.ndarray
    title: np.ndarray
    latent: np.ndarray
    effect: np.ndarray
    trend: np.ndarray
    occupant: np.ndarray
    cell_s: float


@dataclass(frozen=True)
class Users:
    """The users; ``U`` of them: interest, country, device and effects (see the field names)."""

    topic: np.ndarray
    country: np.ndarray
    device: np.ndarray
    latent: np.ndarray
    effect: np.ndarray


@dataclass(frozen=True)
class Queries:
    """Query texts, sorted by topic: topic ``k`` owns ``first[k] .. first[k + 1] - 1``."""

    first: np.ndarray
    text: np.ndarray
    latent: np.ndarray
    effect: np.ndarray


@dataclass(frozen=True)
class Relations:
    """Factors behind the labels beyond the click; ``G`` groups, ``L`` labels.

    Attributes:
        group_user: float32[G, U, 5]; with ``group_ad`` the bilinear factor of a group.
        group_ad: float32[G, A, 5].
        own_user: float32[L, U], each label's own taste of users.
        own_ad: float32[L, A].
    """

    group_user: np.ndarray
    group_ad: np.ndarray
    own_user: np.ndarray
    own_ad: np.ndarray


@dataclass(frozen=True)
class World:
    """All fixed facts of one simulated world."""

    config: WorldConfig
    ads: Ads
    users: Users
    queries: Queries
    relations: Relations


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Returns the random generator of one purpose; equal arguments give equal numbers."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *stream])))


def build_world(config: WorldConfig, seed: int) -> World:
    """Draws the world of a configuration and a seed."""
    rng = generator(seed, 0)
    vocabulary = build_vocabulary(config.n_topics, config.dim, rng)
    users = _users(config, vocabulary, rng)
    queries = _queries(config, vocabulary, rng)
    ads = _ads(config, vocabulary, rng)
    n_groups, n_labels, n_ads = len(config.groups), len(config.labels), len(ads.birth_s)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    relations = Relations(
        group_user=normal(n_groups, config.n_users, 5),
        group_ad=normal(n_groups, n_ads, 5),
        own_user=normal(n_labels, config.n_users),
        own_ad=normal(n_labels, n_ads),
    )
    return World(config, ads, users, queries, relations)


def _users(config: WorldConfig, vocabulary: Vocabulary, rng: np.random.Generator) -> Users:
    n = config.n_users
    topic = rng.integers(0, config.n_topics, n)
    country = (len(COUNTRIES) * rng.random(n) ** 2).astype(np.int32)
    # Tastes are partly a country's, partly an interest's, partly a person's own.
    tastes = rng.standard_normal((len(COUNTRIES), config.dim)) / np.sqrt(config.dim)
    latent = 0.8 * tastes[country] + 0.5 * vocabulary.topics[topic]
    latent += 0.3 * rng.standard_normal((n, config.dim)) / np.sqrt(config.dim)
    effect = rng.normal(0.0, config.user_spread, n)
    effect += rng.normal(0.0, 0.2, len(COUNTRIES))[country]
    return Users(
        topic=topic.astype(np.int32),
        country=country,
        device=rng.choice(len(DEVICES), n, p=(0.6, 0.3, 0.1)).astype(np.int32),
        latent=latent.astype(np.float32),
        effect=effect.astype(np.float32),
    )


def _queries(config: WorldConfig, vocabulary: Vocabulary, rng: np.random.Generator) -> Queries:
    topic = np.sort(np.arange(config.n_queries) % config.n_topics)
    text, latent, _ = draw_texts(vocabulary, topic, QUERY_LENGTHS, rng)
    return Queries(
        first=np.searchsorted(topic, np.arange(config.n_topics + 1)),
        text=text,
        latent=latent,
        effect=(
            rng.normal(0.0, 0.2, config.n_queries)
            + rng.normal(0.0, config.topic_spread, config.n_topics)[topic]
        ).astype(np.float32),
    )


def _ads(config: WorldConfig, vocabulary: Vocabulary, rng: np.random.Generator) -> Ads:
    """Draws one line of successive ads per campaign slot, so that ``n_ads`` always live."""
    n, end_s, life_s = config.n_ads, config.days * 86400.0, config.ad_life_days * 86400.0
    cell_s = HOUR_S * np.ceil(end_s / HOUR_S / _MAX_CELLS)
    n_cells = int(np.ceil(end_s / cell_s)) + 1
    expected = config.days / config.ad_life_days
    gaps = rng.exponential(life_s, (n, int(expected + 8.0 * np.sqrt(expected) + 8)))
    births = np.ceil(np.cumsum(gaps, axis=1) / cell_s).astype(np.int64)
    slot, _ = np.nonzero(births < n_cells)
    cell = births[births < n_cells]
    born = np.zeros((n_cells, n), np.int32)
    np.add.at(born, (cell, slot), 1)
    count = 1 + born.sum(axis=0)
    offset = np.concatenate([[0], np.cumsum(count)[:-1]])
    slot_of_ad = np.repeat(np.arange(n), count)
    first = np.zeros(len(slot_of_ad), bool)
    first[offset] = True
    birth_s = np.empty(len(slot_of_ad))
    birth_s[first] = -rng.exponential(life_s, n)
    birth_s[~first] = cell * cell_s
    death_s = np.append(np.where(first[1:], np.inf, birth_s[1:]), np.inf)

    topic = slot_of_ad // (n // config.n_topics)
    advertiser = slot_of_ad // (n // config.n_advertisers)
    title, latent, word_effect = draw_texts(vocabulary, topic, TITLE_LENGTHS, rng)
    latent += 0.3 * rng.standard_normal(latent.shape, dtype=np.float32) / np.sqrt(config.dim)
    age_d = rng.lognormal(5.0, 1.0, config.n_advertisers)[advertiser]
    log_price = rng.normal(3.0, 0.8, len(topic))
    effect = rng.normal(0.0, config.ad_spread, len(topic)) + word_effect
    effect += rng.normal(0.0, 0.3, config.n_advertisers)[advertiser]
    effect += rng.normal(0.0, config.topic_spread, config.n_topics)[topic]
    effect += 0.1 * (np.log1p(age_d) - 5.0) - 0.2 * (log_price - 3.0)
    trend = rng.normal(-config.fatigue_per_day, config.drift_per_day, len(topic))
    return Ads(
        birth_s=birth_s,
        death_s=death_s,
        topic=topic.astype(np.int32),
        advertiser=advertiser.astype(np.int32),
        advertiser_age_d=age_d.astype(np.float32),
        price=np.exp(log_price).round(2).astype(np.float32),
        bid=rng.lognormal(-0.7, 0.5, len(topic)).astype(np.float32),
        title=title,
        latent=latent,
        effect=effect.astype(np.float32),
        trend=trend.astype(np.float32),
        occupant=(offset + np.cumsum(born, axis=0)).astype(np.int32),
        cell_s=float(cell_s),
    )
