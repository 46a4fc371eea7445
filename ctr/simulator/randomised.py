"""Randomised pages: the auction's winners in an order, and in treatments, drawn by lot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ctr.simulator.pages import Impressions
from ctr.simulator.world import World

#: Column that marks them, in raw logs and examples.
RANDOMISED = "randomised"


def randomise(world: World, shown: Impressions, rng: np.random.Generator) -> Impressions:
    """Shuffles the ads of a share of the pages and draws their treatments uniformly.

    On these pages position and treatment say nothing about an ad's quality, so that a mean over
    them shows what position and treatment do. Which ads are on a page does not change, nor does
    any other page.

    Args:
        world: Whose ``randomised`` is the share.
        shown: Whole pages, N impressions.
        rng: Source of this randomness only.
    """
    config = world.config
    n_pages = len(shown) // config.slots
    chosen = rng.random(n_pages) < config.randomised
    order = np.argsort(rng.random((n_pages, config.slots)), axis=1)
    order = np.where(chosen[:, None], order, np.arange(config.slots))
    source = (np.arange(n_pages)[:, None] * config.slots + order).ravel()
    marked = np.repeat(chosen, config.slots)
    drawn = rng.integers(0, len(config.treatments), len(shown), dtype=np.int32)
    return replace(
        shown,
        ad=shown.ad[source],
        bid=shown.bid[source],
        quality=shown.quality[source],
        treatment=np.where(marked, drawn, shown.treatment),
        randomised=marked,
    )
