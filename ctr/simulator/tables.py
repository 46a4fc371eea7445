"""Arrow tables of a simulated stream: labelled examples in shard columns, and the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ctr.simulator.outcomes import Outcomes
from ctr.simulator.pages import Impressions
from ctr.simulator.randomised import RANDOMISED
from ctr.simulator.stream import impression_ids
from ctr.simulator.world import COUNTRIES, DEVICES, World

#: Where the truth is, in a folder of raw logs as in a data folder.
TRUTH = "truth/truth.parquet"
_TIME = pa.timestamp("us", tz="UTC")


class Texts:
    """The strings of a world's ids and texts, made once and looked up by number."""

    def __init__(self, world: World) -> None:
        """Makes the strings of all users, ads, queries and interface names."""
        config, ads = world.config, world.ads
        self.world = world
        self.slots = config.slots
        self.labels = [label.name for label in config.labels]
        self._users = _numbered("u", config.n_users)
        self._ads = _numbered("a", len(ads.birth_s))
        self._advertisers = _numbered("v", config.n_advertisers)
        self._titles = pa.array(ads.title)
        self._queries = pa.array(world.queries.text)
        self._devices, self._countries = pa.array(DEVICES), pa.array(COUNTRIES)
        self._treatments = pa.array(config.treatments)

    def columns(self, shown: Impressions) -> dict[str, pa.Array]:
        """Returns the columns every output shares, by the names of the raw log."""
        world = self.world
        ads, users = world.ads, world.users
        marks = {RANDOMISED: pa.array(shown.randomised.astype(np.int8))}
        return {
            "user_id": self._users.take(pa.array(shown.user)),
            "ad_id": self._ads.take(pa.array(shown.ad)),
            "advertiser_id": self._advertisers.take(pa.array(ads.advertiser[shown.ad])),
            "device": self._devices.take(pa.array(shown.device)),
            "country": self._countries.take(pa.array(users.country[shown.user])),
            "query_text": self._queries.take(pa.array(shown.query)),
            "ad_title": self._titles.take(pa.array(shown.ad)),
            "bid": pa.array(shown.bid),
            "price": pa.array(ads.price[shown.ad]),
            "advertiser_age_d": pa.array(self.account_age(shown)),
            "treatment": self._treatments.take(pa.array(shown.treatment)),
            **(marks if world.config.randomised else {}),
        }

    def account_age(self, shown: Impressions) -> np.ndarray:
        """Returns float32[N], whole days since the advertiser's account was opened."""
        day = shown.time_ms / 86_400_000.0 - self.world.config.start_s / 86_400.0
        age = self.world.ads.advertiser_age_d[shown.ad] + day
        return np.floor(age).astype(np.float32)


def _numbered(prefix: str, count: int) -> pa.Array:
    return pa.array([f"{prefix}{number}" for number in range(count)])


def example_table(texts: Texts, shown: Impressions, outcomes: Outcomes) -> pa.Table:
    """Returns joined examples in shard columns."""
    shared = texts.columns(shown)
    columns: dict[str, pa.Array] = {
        "example_id": pa.array(impression_ids(shown, texts.slots)).cast(pa.string()),
        "event_time": pa.array(shown.time_ms * 1000, _TIME),
        "query_id": pa.array(shown.page).cast(pa.string()),
        "position": pa.array(shown.position),
    }
    treatment = shared.pop("treatment")
    columns |= shared
    columns["slot"] = pa.array(shown.position).cast(pa.string())
    columns["treatment"] = treatment
    for index, name in enumerate(texts.labels):
        label = outcomes.label[index]
        columns[name] = pa.array(label.astype(np.int8))
        time_us = (shown.time_ms + outcomes.delay_ms[index]) * 1000
        columns[f"{name}_time"] = pa.array(time_us, _TIME, mask=~label)
    return pa.table(columns)


def truth_schema(labels: Sequence[str]) -> pa.Schema:
    """Returns the columns of what only a simulator knows.

    ``example_id``, ``event_time``; ``p_<label>``, the probability that the label is 1 as shown;
    ``quality_logit``, the click logit without interface, position and base rate;
    ``affinity_<label>``, the same for every other label; ``examination``, ``presentation_logit``
    and ``base_offset``. All numbers are float32.
    """
    numbers = [f"p_{name}" for name in labels]
    numbers += ["quality_logit", *(f"affinity_{name}" for name in labels[1:])]
    numbers += ["examination", "presentation_logit", "base_offset"]
    identity = [("example_id", pa.string()), ("event_time", _TIME)]
    return pa.schema([*identity, *((name, pa.float32()) for name in numbers)])


def truth_table(texts: Texts, shown: Impressions, outcomes: Outcomes) -> pa.Table:
    """Returns the truth about a run of impressions, in the columns of :func:`truth_schema`."""
    numbers = [*outcomes.prob, *outcomes.logit]
    numbers += [outcomes.examination, outcomes.presentation, outcomes.base]
    identity = [
        pa.array(impression_ids(shown, texts.slots)).cast(pa.string()),
        pa.array(shown.time_ms * 1000, _TIME),
    ]
    return pa.Table.from_arrays([*identity, *numbers], schema=truth_schema(texts.labels))
