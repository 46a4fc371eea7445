"""Page views and their auctions: who asks what, which ads compete, which are shown where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.simulator.world import DEVICE_EFFECTS, DEVICES, World

#: Page views that are generated at a time; bounds memory and is part of what a seed means.
CHUNK_PAGES = 16_384
_TRAFFIC_CYCLE = 0.6


@dataclass(frozen=True)
class Impressions:
    """Ads shown on a run of pages; ``N`` impressions, page by page and top to bottom.

    Attributes:
        page: int64[N], number of the page view.
        position: int32[N], 1 is the top.
        time_ms: int64[N], milliseconds since the epoch; ascending.
        user: int32[N].
        query: int32[N].
        ad: int32[N].
        device: int32[N].
        treatment: int32[N].
        bid: float32[N], bid of this auction.
        quality: float32[N], true click logit before intercept, treatment and base rate.
        randomised: bool[N], position and treatment were drawn by lot.
    """

    page: np.ndarray
    position: np.ndarray
    time_ms: np.ndarray
    user: np.ndarray
    query: np.ndarray
    ad: np.ndarray
    device: np.ndarray
    treatment: np.ndarray
    bid: np.ndarray
    quality: np.ndarray
    randomised: np.ndarray

    def __len__(self) -> int:
        return len(self.page)


def page_times(world: World, uniform: np.ndarray) -> np.ndarray:
    """Maps ascending numbers in [0, 1) to ascending seconds since the start; nights are quiet."""
    end_s = world.config.days * 86400.0
    grid = np.linspace(0.0, end_s, int(world.config.days * 288) + 2)
    wave = (_TRAFFIC_CYCLE * 86400.0 / (2 * np.pi)) * np.cos(2 * np.pi * (grid / 86400.0 - 0.4))
    volume = grid - wave
    volume = (volume - volume[0]) / (volume[-1] - volume[0])
    return np.interp(uniform, volume, grid)


def simulate_pages(
    world: World, rng: np.random.Generator, first_page: int, n_pages: int, total_pages: int
) -> Impressions:
    """Simulates page views ``first_page .. first_page + n_pages - 1`` of ``total_pages``.

    Returns:
        ``n_pages * slots`` impressions in time order.
    """
    config, ads, users, queries = world.config, world.ads, world.users, world.queries

    def uniform(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    time_s = page_times(
        world, (first_page + np.arange(n_pages) + rng.random(n_pages)) / total_pages
    )
    # Cubes and squares of uniforms are power laws: few users and queries make most page views.
    user = (config.n_users * uniform(n_pages) ** 3).astype(np.int32).clip(max=config.n_users - 1)
    own = uniform(n_pages) < 0.3
    topic = np.where(own, users.topic[user], _below(uniform(n_pages), config.n_topics))
    size = queries.first[topic + 1] - queries.first[topic]
    query = (queries.first[topic] + (size * uniform(n_pages) ** 2).clip(max=size - 1)).astype(
        np.int32
    )
    switched = uniform(n_pages) < 0.2
    device = np.where(switched, _below(uniform(n_pages), len(DEVICES)), users.device[user])

    # Candidate j comes from every `candidates`-th campaign, so that no ad competes with itself.
    shape = (n_pages, config.candidates)
    per_topic = config.n_ads // config.n_topics // config.candidates
    pick = uniform(*shape)
    group = np.where(
        uniform(*shape) < config.topical,
        topic[:, None] * per_topic + _below(pick, per_topic),
        _below(pick, per_topic * config.n_topics),
    )
    campaign = group * config.candidates + np.arange(config.candidates)
    ad = ads.occupant[(time_s // ads.cell_s).astype(np.int64)[:, None], campaign]

    age_d = ((time_s[:, None] - ads.birth_s[ad]) / 86400.0).astype(np.float32)
    taste = config.query_match * queries.latent[query] + config.user_match * users.latent[user]
    quality = ads.effect[ad] + ads.trend[ad] * age_d
    quality += np.einsum("pd,pcd->pc", taste, ads.latent[ad])
    quality += (queries.effect[query] + users.effect[user] + DEVICE_EFFECTS[device])[:, None]
    bid = ads.bid[ad] * np.exp(0.3 * rng.standard_normal(shape, dtype=np.float32))
    # A score of exp(logit) x bid stands in for probability x bid: CTRs are small.
    noise = config.auction_noise * rng.standard_normal(shape, dtype=np.float32)
    order = np.argsort(-(quality + noise + np.log(bid)), axis=1)[:, : config.slots]

    def shown(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, order, axis=1).ravel()

    def spread(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, config.slots)

    position = np.tile(np.arange(1, config.slots + 1, dtype=np.int32), n_pages)
    return Impressions(
        page=spread(first_page + np.arange(n_pages, dtype=np.int64)),
        position=position,
        time_ms=spread(((config.start_s + time_s) * 1000.0).astype(np.int64)),
        user=spread(user),
        query=spread(query),
        ad=shown(ad),
        device=spread(device.astype(np.int32)),
        treatment=_treatments(
            config.slots, len(config.treatments), position, uniform(len(position))
        ),
        bid=shown(bid).round(3),
        quality=shown(quality),
        randomised=np.zeros(len(position), bool),
    )


def _below(uniform: np.ndarray, limit: int) -> np.ndarray:
    """Turns uniforms into integers below ``limit`` (the clip guards against rounding up)."""
    return (uniform * np.float32(limit)).astype(np.int32).clip(max=limit - 1)


def _treatments(n_slots: int, n_treatments: int, position: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Draws treatments; later ones in the list are given to higher positions more often."""
    height = 1.0 - np.arange(n_slots)[:, None] / n_slots
    weight = 1.0 + (2.0 * height - 1.0) * np.linspace(-0.6, 0.6, n_treatments)
    edges = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)[:, :-1]
    return (u[:, None] >= edges[position - 1]).sum(axis=1).astype(np.int32)
