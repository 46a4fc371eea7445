import dataclasses

import pytest

from ctr.errors import ConfigError
from ctr.simulator import LabelSpec, WorldConfig
from ctr.simulator.config import LABELS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "yesterday"}, "start: received 'yesterday', expected an ISO date"),
        ({"days": 0.0}, "days: received 0.0"),
        ({"n_ads": 4801}, "n_ads: received 4801, expected a multiple of .* = 64"),
        ({"n_advertisers": 7}, "n_advertisers: received 7, expected a divisor"),
        ({"n_queries": 3}, "n_queries: received 3, expected at least n_topics = 8"),
        ({"examination": ()}, "examination"),
        ({"examination": (1.0, 1.2)}, "examination"),
        ({"treatments": ("plain",)}, "treatment_logits"),
        ({"treatments": ("a", "b,c", "d")}, "treatments: received 'b,c'"),
        ({"malformed_rate": 1.5}, "malformed_rate: received 1.5"),
        ({"jitter_s": -1.0}, "jitter_s: received -1.0"),
        ({"labels": (LABELS[0], LABELS[0])}, "names that differ"),
        ({"labels": LABELS[1:]}, "first label needs no click"),
        ({"labels": (LabelSpec("click", "a", 0.7),)}, "labels.click.rate: received 0.7"),
        (
            {"labels": (LABELS[0], dataclasses.replace(LABELS[1], window_s=1.0))},
            r"labels.long_dwell.window_s: received 1.0, expected at least the click's 300.0",
        ),
    ],
)
def test_impossible_worlds_are_refused_with_the_key_and_the_value(change, message):
    with pytest.raises(ConfigError, match=message):
        WorldConfig(**change)


def test_share_of_delays_in_time_is_the_log_normal_distribution():
    label = LabelSpec("x", "g", 0.1, delay_median_s=10.0, delay_sigma=1.0, window_s=27.182818)
    assert label.in_time(10.0) == pytest.approx(0.5)
    assert label.in_window() == pytest.approx(0.841344746)
