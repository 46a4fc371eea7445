"""Sizes, rates and known effects of the simulated ad world."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

from ctr.errors import ConfigError


@dataclass(frozen=True)
class LabelSpec:
    """One event type users may produce, and how it relates to the others.

    Attributes:
        name: Label column, and stem of the event log's file name.
        group: Labels of one group share a planted factor; the first label's group shares the
            ad quality that drives clicks.
        rate: Share of impressions whose event happens, averaged over the world's sample pages.
        relatedness: Correlation of the label's logit with its group's factor, 0 to 1.
        after_click: True if the event needs a click on the same impression.
        delay_median_s: Median of the log-normal time from impression to event.
        delay_sigma: Standard deviation of the logarithm of that time.
        window_s: Attribution window; an event that comes later does not count.
    """

    name: str
    group: str
    rate: float
    relatedness: float = 0.9
    after_click: bool = False
    delay_median_s: float = 10.0
    delay_sigma: float = 1.0
    window_s: float = 600.0

    def in_window(self) -> float:
        """Returns the probability that a delay drawn for this label ends inside its window."""
        return self.in_time(self.window_s)

    def in_time(self, seconds: float) -> float:
        """Returns the probability that a delay drawn for this label is at most ``seconds``."""
        z = math.log(seconds / self.delay_median_s) / self.delay_sigma
        return 0.5 * math.erfc(-z / math.sqrt(2.0))


LABELS = (
    LabelSpec("click", "commerce", 0.07, 1.0, False, 8.0, 1.6, 300.0),
    LabelSpec("long_dwell", "commerce", 0.025, 0.85, True, 60.0, 0.6, 600.0),
    LabelSpec("add_to_cart", "commerce", 0.012, 0.85, True, 300.0, 1.2, 7200.0),
    LabelSpec("conversion", "commerce", 0.005, 0.8, True, 10800.0, 1.6, 86400.0),
    LabelSpec("like", "social", 0.03, 0.85, False, 15.0, 1.0, 600.0),
    LabelSpec("share", "social", 0.012, 0.85, False, 40.0, 1.2, 3600.0),
)


@dataclass(frozen=True)
class WorldConfig:
    """A simulated ad world; ``docs/simulator.md`` gives its formulas.

    Attributes:
        start: First day, UTC, as an ISO date.
        days: Length of the stream in days.
        n_users: Users; a few of them are much more active than most.
        n_queries: Distinct query texts.
        n_ads: Ads alive at any time; a multiple of ``n_topics * candidates``.
        n_advertisers: Advertisers; divides ``n_ads``.
        n_topics: Topics of queries and ads.
        ad_life_days: Mean life of an ad; a new ad takes the place of one that ended.
        dim: Width of the latent vectors of words, users, queries and ads.
        candidates: Ads that compete in one auction.
        examination: Probability that position 1, 2, ... is looked at; its length is the number
            of ads on a page.
        treatments: Names of the user interface treatments of an ad.
        treatment_logits: What each treatment adds to the click logit.
        randomised: Share of pages whose ads stand in a random order and treatment; above 0 there
            is a column ``randomised`` that marks them.
        topical: Share of candidates that are retrieved by the query's topic.
        auction_noise: Standard deviation of the auction's error in its predicted quality logit.
        query_match: Weight of the query x ad interaction in the click logit.
        user_match: Weight of the user x ad interaction in the click logit.
        topic_spread: Standard deviation of the topics' effects, of ads and of queries each.
        ad_spread: Standard deviation of the ads' own effects.
        user_spread: Standard deviation of the users' own effects.
        drift_per_day: Standard deviation of the daily change of an ad's effect.
        fatigue_per_day: Mean daily loss of an ad's effect.
        daily_cycle: Amplitude of the base rate's daily cycle, in logits.
        base_drift_per_day: Linear drift of the base rate, in logits a day.
        shift_day: Day (may be fractional) at which the base rate jumps.
        shift_logit: Size of that jump, in logits.
        labels: Event types; the first one is the click.
        duplicate_rate: Share of lines of the raw logs that are delivered twice.
        malformed_rate: Share of lines preceded by a failed delivery of the same line: cut,
            garbled time, or a surplus field.
        jitter_s: Longest delay between an event and its arrival in a raw log, in seconds; lines
            are in order of arrival. A repeat may take as long again.
    """

    start: str = "2026-01-05"
    days: float = 14.0
    n_users: int = 20_000
    n_queries: int = 2_000
    n_ads: int = 4_800
    n_advertisers: int = 480
    n_topics: int = 8
    ad_life_days: float = 7.0
    dim: int = 8
    candidates: int = 8
    examination: tuple[float, ...] = (0.95, 0.6, 0.42, 0.3)
    treatments: tuple[str, ...] = ("plain", "extensions", "image")
    treatment_logits: tuple[float, ...] = (0.0, 0.3, 0.7)
    randomised: float = 0.0
    topical: float = 0.4
    auction_noise: float = 1.5
    query_match: float = 3.0
    user_match: float = 1.8
    topic_spread: float = 0.5
    ad_spread: float = 0.5
    user_spread: float = 0.5
    drift_per_day: float = 0.05
    fatigue_per_day: float = 0.03
    daily_cycle: float = 0.15
    base_drift_per_day: float = 0.01
    shift_day: float = 9.0
    shift_logit: float = 0.35
    labels: tuple[LabelSpec, ...] = LABELS
    duplicate_rate: float = 0.01
    malformed_rate: float = 0.001
    jitter_s: float = 30.0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def slots(self) -> int:
        """Ads on one page."""
        return len(self.examination)

    @property
    def start_s(self) -> float:
        """Start of the stream, seconds since the epoch."""
        day = datetime.datetime.fromisoformat(self.start)
        return day.replace(tzinfo=datetime.UTC).timestamp()

    @property
    def groups(self) -> tuple[str, ...]:
        """Label groups in order of first mention."""
        return tuple(dict.fromkeys(label.group for label in self.labels))


def _check(config: WorldConfig) -> None:
    """Raises ConfigError on the first value no world can be made from."""
    try:
        datetime.date.fromisoformat(config.start)
    except ValueError:
        _fail("start", config.start, "an ISO date such as '2026-01-05'")
    for key in ("days", "ad_life_days", "n_users", "n_queries", "n_topics", "n_advertisers", "dim"):
        if getattr(config, key) <= 0:
            _fail(key, getattr(config, key), "a number above 0")
    if config.n_queries < config.n_topics:
        _fail("n_queries", config.n_queries, f"at least n_topics = {config.n_topics}")
    unit = config.n_topics * config.candidates
    if config.n_ads < unit or config.n_ads % unit:
        _fail("n_ads", config.n_ads, f"a multiple of n_topics * candidates = {unit}")
    if config.n_ads % config.n_advertisers:
        _fail("n_advertisers", config.n_advertisers, f"a divisor of n_ads = {config.n_ads}")
    if not 1 <= config.slots <= config.candidates:
        _fail("examination", config.examination, f"1 to candidates = {config.candidates} numbers")
    if not all(0 < e <= 1 for e in config.examination):
        _fail("examination", config.examination, "probabilities above 0, at most 1")
    if len(config.treatments) != len(config.treatment_logits) or not config.treatments:
        _fail("treatment_logits", config.treatment_logits, "one number for each treatment")
    for name in config.treatments:
        if not name.replace("-", "_").isidentifier():
            _fail("treatments", name, "names of letters, digits, hyphens and underscores")
    for key in ("randomised", "topical", "duplicate_rate", "malformed_rate"):
        if not 0 <= getattr(config, key) <= 1:
            _fail(key, getattr(config, key), "a share between 0 and 1")
    for key in ("auction_noise", "jitter_s"):
        if getattr(config, key) < 0:
            _fail(key, getattr(config, key), "a number of at least 0")
    _check_labels(config.labels)


def _check_labels(labels: tuple[LabelSpec, ...]) -> None:
    if not labels or labels[0].after_click:
        _fail("labels", [x.name for x in labels], "a list whose first label needs no click")
    names = [label.name for label in labels]
    if len(set(names)) != len(names):
        _fail("labels", names, "names that differ")
    click = labels[0]
    for label in labels:
        here = f"labels.{label.name}"
        if not label.name.isidentifier():
            _fail(f"{here}.name", label.name, "a name of letters, digits and underscores")
        limit = click.rate if label.after_click else 0.5
        if not 0 < label.rate < limit:
            _fail(f"{here}.rate", label.rate, f"a share above 0 and below {limit}")
        if not 0 <= label.relatedness <= 1:
            _fail(f"{here}.relatedness", label.relatedness, "a number between 0 and 1")
        if min(label.delay_median_s, label.delay_sigma, label.window_s) <= 0:
            _fail(here, label, "delays and window above 0")
        if label.after_click and label.window_s < click.window_s:
            _fail(f"{here}.window_s", label.window_s, f"at least the click's {click.window_s}")


def _fail(key: str, received: object, expected: str) -> None:
    raise ConfigError(f"simulated world, {key}: received {received!r}, expected {expected}.")
