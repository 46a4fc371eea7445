"""Pages in random order: what changes, what stays, and what can be read off them."""

import dataclasses

import numpy as np
import pytest

from ctr.errors import ConfigError
from ctr.simulator import WorldConfig, simulate_examples, simulated_schema
from ctr.simulator.pages import simulate_pages
from ctr.simulator.randomised import RANDOMISED, randomise
from ctr.simulator.stream import open_stream
from ctr.simulator.world import build_world, generator

SMALL = WorldConfig(n_users=500, n_queries=120, n_ads=512, n_advertisers=64, randomised=0.2)


@pytest.fixture(scope="module")
def pages():
    world = build_world(SMALL, 3)
    shown = simulate_pages(world, generator(3, 1, 0), 0, 20_000, 20_000)
    return shown, randomise(world, shown, generator(3, 4, 0))


def test_a_share_of_whole_pages_is_marked_and_no_other_page_changes(pages):
    before, after = pages
    by_page = after.randomised.reshape(-1, SMALL.slots)
    assert (by_page.all(axis=1) == by_page.any(axis=1)).all()
    assert by_page[:, 0].mean() == pytest.approx(0.2, abs=0.01)
    for field in dataclasses.fields(before):
        if field.name != RANDOMISED:
            a, b = getattr(before, field.name), getattr(after, field.name)
            np.testing.assert_array_equal(a[~after.randomised], b[~after.randomised])


def test_the_same_ads_stand_on_a_page_with_their_bids_and_qualities(pages):
    def rows(shown):
        key = np.stack([shown.page, shown.ad, shown.bid, shown.quality], axis=1)
        return key[np.lexsort((shown.ad, shown.page))]

    before, after = pages
    np.testing.assert_array_equal(rows(before), rows(after))
    np.testing.assert_array_equal(before.position, after.position)
    np.testing.assert_array_equal(before.time_ms, after.time_ms)


def test_neither_position_nor_treatment_says_anything_about_quality_there(pages):
    _, after = pages
    for drawn, least in ((after.randomised, 0.0), (~after.randomised, 0.25)):
        quality, place = after.quality[drawn], after.position[drawn]
        error = quality.std() / np.sqrt(len(quality))
        slope = np.cov(quality, place)[0, 1] / place.var()
        assert abs(slope) > least
        assert bool(abs(slope) < 4 * error / place.std()) is bool(least == 0.0)
        treatments = np.bincount(after.treatment[drawn & (after.position == 1)], minlength=3)
        spread = treatments.max() / treatments.min()
        assert bool(spread < 1.2) is bool(least == 0.0)


def test_clicks_by_position_on_these_pages_follow_the_examination():
    config = dataclasses.replace(SMALL, randomised=1.0)
    found = simulate_examples(120_000, 5, config)
    prob = found.truth["p_click"].to_numpy()
    position = found.examples["position"].to_numpy()
    assert (found.examples[RANDOMISED].to_numpy() == 1).all()
    means = np.array([prob[position == k].mean() for k in (1, 2, 3, 4)])
    expected = np.array(config.examination)
    np.testing.assert_allclose(means / means[0], expected / expected[0], rtol=0.03)


def test_off_by_default_without_a_column_and_with_the_same_bits():
    off = dataclasses.replace(SMALL, randomised=0.0)
    assert WorldConfig().randomised == 0.0
    plain, marked = (simulate_examples(8_000, 2, config) for config in (off, SMALL))
    assert RANDOMISED not in plain.examples.column_names
    assert not simulated_schema(off).side
    assert simulated_schema(SMALL).side == (RANDOMISED,)
    chosen = marked.examples[RANDOMISED].to_numpy() == 1
    assert 0 < chosen.sum() < len(chosen)
    for name in ("ad_id", "treatment", "user_id", "event_time"):
        a, b = (np.asarray(x.examples[name].to_pylist())[~chosen] for x in (plain, marked))
        np.testing.assert_array_equal(a, b)


def test_a_stream_that_ends_within_a_page_is_cut_there():
    stream = open_stream(10_002, 2, dataclasses.replace(SMALL, randomised=0.5))
    assert sum(len(shown) for shown, _ in stream) == 10_002


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ConfigError, match="randomised"):
        WorldConfig(randomised=share)
