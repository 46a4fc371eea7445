import numpy as np
import pytest

from ctr.simulator import WorldConfig
from ctr.simulator.pages import page_times, simulate_pages
from ctr.simulator.world import build_world, generator

SMALL = WorldConfig(n_users=500, n_queries=120, n_ads=512, n_advertisers=64, ad_life_days=2.0)


@pytest.fixture(scope="module")
def world():
    return build_world(SMALL, 3)


@pytest.fixture(scope="module")
def shown(world):
    return simulate_pages(world, generator(3, 1, 0), 0, 10_000, 10_000)


def test_ads_are_born_and_die_and_only_living_ones_are_shown(world, shown):
    ads = world.ads
    seconds = shown.time_ms / 1000.0 - SMALL.start_s
    # Births are on whole cells of time, so the edges are exact up to the log's milliseconds.
    assert (ads.birth_s[shown.ad] <= seconds + 0.001).all()
    assert (ads.death_s[shown.ad] >= seconds - 0.001).all()
    served = np.unique(shown.ad)
    assert (ads.birth_s[served] > 0).sum() > 1000, "newborn ads are served"
    old = np.unique(shown.ad[seconds < 86400.0])
    assert (ads.death_s[old] < 14 * 86400.0).mean() > 0.9, "most early ads die in two weeks"


def test_as_many_ads_live_at_any_time_as_configured(world):
    for day in (0.01, 3.3, 7.7, 13.9):
        now = day * 86400.0
        alive = (world.ads.birth_s <= now) & (now < world.ads.death_s)
        assert alive.sum() == SMALL.n_ads


def test_mean_life_is_as_configured():
    world = build_world(WorldConfig(days=60.0), 5)
    ads = world.ads
    born_early = (ads.birth_s >= 0) & (ads.birth_s < 10 * 86400.0)
    life_d = (np.minimum(ads.death_s, 60 * 86400.0) - ads.birth_s)[born_early] / 86400.0
    assert life_d.mean() == pytest.approx(7.0, rel=0.05)


def test_an_auction_shows_no_ad_twice_and_positions_count_from_the_top(shown):
    ads = shown.ad.reshape(-1, SMALL.slots)
    assert all(len(set(row)) == SMALL.slots for row in ads.tolist())
    assert (shown.position.reshape(-1, SMALL.slots) == [1, 2, 3, 4]).all()


def test_position_and_quality_are_confounded_by_the_auction(shown):
    quality = shown.quality.reshape(-1, SMALL.slots).mean(axis=0)
    assert (np.diff(quality) < -0.1).all()


def test_ads_and_queries_of_one_topic_fit_better(world, shown):
    own = (
        world.ads.topic[shown.ad]
        == np.searchsorted(world.queries.first, shown.query, side="right") - 1
    )
    assert 0.3 < own.mean() < 0.95
    effects = world.ads.effect[shown.ad] + world.users.effect[shown.user]
    match = shown.quality - effects
    assert match[own].mean() - match[~own].mean() > 0.5


def test_times_ascend_inside_the_span_and_nights_are_quiet(world, shown):
    day_ms = 86_400_000
    since = shown.time_ms - int(SMALL.start_s * 1000)
    assert (np.diff(since) >= 0).all()
    assert since[0] >= 0
    assert since[-1] < SMALL.days * day_ms
    per_hour = np.bincount((since % day_ms) // 3_600_000, minlength=24)
    assert per_hour.max() > 2.5 * per_hour.min()
    assert page_times(world, np.array([0.0]))[0] == 0.0


def test_treatments_depend_on_the_position(shown):
    top = np.bincount(shown.treatment[shown.position == 1], minlength=3) / len(shown) * 4
    bottom = np.bincount(shown.treatment[shown.position == 4], minlength=3) / len(shown) * 4
    assert top[2] > 0.4 > 0.35 > bottom[2]
    assert min(top.min(), bottom.min()) > 0.05, "every treatment is seen everywhere"


def test_texts_are_plain_words_of_the_vocabulary(world):
    for text in [*world.queries.text[:200], *world.ads.title[:200]]:
        words = text.split(" ")
        assert 2 <= len(words) <= 6
        assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
