"""A simulated stream, chunk by chunk in time order, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from ctr.errors import ConfigError
from ctr.simulator.config import WorldConfig
from ctr.simulator.outcomes import Calibration, Outcomes, calibrate, simulate_outcomes
from ctr.simulator.pages import CHUNK_PAGES, Impressions, simulate_pages
from ctr.simulator.randomised import randomise
from ctr.simulator.world import World, build_world, generator

_PAGES = 1
_RANDOMISED = 4


@dataclass(frozen=True)
class Stream:
    """A world and how many impressions to draw from it; iterate it as often as needed.

    Attributes:
        world: The fixed facts.
        calibration: Intercepts of the labels.
        n_impressions: Length of the stream.
        seed: Source of all randomness.
    """

    world: World
    calibration: Calibration
    n_impressions: int
    seed: int

    def __iter__(self) -> Iterator[tuple[Impressions, Outcomes]]:
        slots = self.world.config.slots
        total = -(-self.n_impressions // slots)
        for chunk, first in enumerate(range(0, total, CHUNK_PAGES)):
            rng = generator(self.seed, _PAGES, chunk)
            shown = simulate_pages(self.world, rng, first, min(CHUNK_PAGES, total - first), total)
            if self.world.config.randomised:
                own = generator(self.seed, _RANDOMISED, chunk)
                shown = randomise(self.world, shown, own)
            left = self.n_impressions - first * slots
            if left < len(shown):
                shown = Impressions(*(getattr(shown, f.name)[:left] for f in fields(shown)))
            yield shown, simulate_outcomes(self.world, self.calibration, shown, rng)


def open_stream(n_impressions: int, seed: int, config: WorldConfig) -> Stream:
    """Builds the world of a seed and configuration.

    Raises:
        ConfigError: the number of impressions is below 1 or the seed is negative.
    """
    if n_impressions < 1:
        raise ConfigError(f"--impressions: received {n_impressions}, expected at least 1.")
    if seed < 0:
        raise ConfigError(f"--seed: received {seed}, expected 0 or more.")
    world = build_world(config, seed)
    return Stream(world, calibrate(world, seed), n_impressions, seed)


def impression_ids(shown: Impressions, slots: int) -> np.ndarray:
    """Returns int64[N], numbers that identify impressions within a stream."""
    return shown.page * slots + shown.position - 1
