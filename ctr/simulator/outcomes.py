"""What users do with the ads they are shown: true probabilities, events and their delays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctr.simulator.pages import Impressions, simulate_pages
from ctr.simulator.world import World, generator

#: Spread of the logits of every label but the click, whose spread is that of ad quality.
_SPREAD = 1.2
_SAMPLE_PAGES = 12_000
_CALIBRATION = 2


@dataclass(frozen=True)
class Calibration:
    """Constants that make the labels' rates come out as configured.

    Attributes:
        mean: Mean of the raw ad quality over sample pages.
        deviation: Standard deviation of it.
        intercepts: One per label.
    """

    mean: float
    deviation: float
    intercepts: tuple[float, ...]


@dataclass(frozen=True)
class Outcomes:
    """Truth and events of ``N`` impressions for ``L`` labels.

    Attributes:
        logit: float32[L, N], each label's affinity, before treatment, base rate and position.
        examination: float32[N], probability that the position is looked at.
        presentation: float32[N], logit of the treatment.
        base: float32[N], logit offset of the base rate at that time.
        prob: float32[L, N], probability that the label is 1: an event inside the window.
        happened: bool[L, N], an event happened, sooner or later.
        delay_ms: int64[L, N], time from impression to event; 0 where none happened.
        label: bool[L, N], the event happened inside the window.
    """

    logit: np.ndarray
    examination: np.ndarray
    presentation: np.ndarray
    base: np.ndarray
    prob: np.ndarray
    happened: np.ndarray
    delay_ms: np.ndarray
    label: np.ndarray


def base_offset(world: World, time_ms: np.ndarray) -> np.ndarray:
    """Returns float32[N], the base rate's offset in logits: daily cycle, drift and shift."""
    config = world.config
    day = time_ms / 86_400_000.0 - config.start_s / 86_400.0
    offset = config.daily_cycle * np.sin(2 * np.pi * (day - 0.6))
    offset += config.base_drift_per_day * day + config.shift_logit * (day >= config.shift_day)
    return offset.astype(np.float32)


def calibrate(world: World, seed: int) -> Calibration:
    """Finds the intercepts on sample pages that are spread over the whole stream."""
    rng = generator(seed, _CALIBRATION)
    shown = simulate_pages(world, rng, 0, _SAMPLE_PAGES, _SAMPLE_PAGES)
    mean, deviation = float(shown.quality.mean()), float(shown.quality.std())
    blank = Calibration(mean, deviation, (0.0,) * len(world.config.labels))
    logit = _logits(world, shown, blank)
    examination, presentation, base = _circumstances(world, shown)
    intercepts: list[float] = []
    clicked = examination
    for index, label in enumerate(world.config.labels):
        logit[index] += _extra(index, label.after_click, presentation, base)
        seen = clicked if label.after_click else examination
        intercepts.append(_solve(logit[index], seen, label.rate))
        if index == 0:
            clicked = examination * _sigmoid(logit[0] + np.float32(intercepts[0]))
    return Calibration(mean, deviation, tuple(intercepts))


def simulate_outcomes(
    world: World, calibration: Calibration, shown: Impressions, rng: np.random.Generator
) -> Outcomes:
    """Draws the events of a run of impressions."""
    labels = world.config.labels
    logit = _logits(world, shown, calibration)
    examination, presentation, base = _circumstances(world, shown)
    prob = np.empty_like(logit)
    happened = np.empty(logit.shape, bool)
    delay_ms = np.zeros(logit.shape, np.int64)
    clicked = examination
    for index, label in enumerate(labels):
        chance = _sigmoid(logit[index] + _extra(index, label.after_click, presentation, base))
        in_window = label.in_window()
        if label.after_click:
            happened[index] = (rng.random(len(shown), dtype=np.float32) < chance) & happened[0]
            chance *= clicked
            # An event after a click comes no sooner than the click: both delays must fit.
            in_window *= labels[0].in_time(label.window_s)
        else:
            chance *= examination
            happened[index] = rng.random(len(shown), dtype=np.float32) < chance
        if index == 0:
            clicked = chance
        prob[index] = chance * np.float32(in_window)
        where = np.flatnonzero(happened[index])
        delay_s = label.delay_median_s * np.exp(label.delay_sigma * rng.standard_normal(len(where)))
        delay_ms[index, where] = (1000.0 * delay_s).astype(np.int64)
        if label.after_click:
            np.maximum(delay_ms[index], delay_ms[0] * happened[index], out=delay_ms[index])
    window_ms = np.array([[1000.0 * label.window_s] for label in labels])
    return Outcomes(
        logit=logit,
        examination=examination,
        presentation=presentation,
        base=base,
        prob=prob,
        happened=happened,
        delay_ms=delay_ms,
        label=happened & (delay_ms <= window_ms),
    )


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logit))


def _extra(index: int, after_click: bool, presentation: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The base rate moves every event of an impression; the treatment moves clicks only."""
    if after_click:
        return np.float32(0.0) * base
    return presentation + base if index == 0 else base


def _circumstances(world: World, shown: Impressions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    config = world.config
    examination = np.array(config.examination, np.float32)[shown.position - 1]
    presentation = np.array(config.treatment_logits, np.float32)[shown.treatment]
    return examination, presentation, base_offset(world, shown.time_ms)


def _logits(world: World, shown: Impressions, calibration: Calibration) -> np.ndarray:
    """Returns float32[L, N]: intercept + spread x (group factor and own taste, as related)."""
    config, relations = world.config, world.relations
    user, ad = shown.user, shown.ad
    factors = [(shown.quality - np.float32(calibration.mean)) / np.float32(calibration.deviation)]
    for group in range(1, len(config.groups)):
        of_user, of_ad = relations.group_user[group][user], relations.group_ad[group][ad]
        # User effect + ad effect + a bilinear term, each of variance 1.
        mixed = np.einsum("nd,nd->n", of_user[:, 1:], of_ad[:, 1:]) / 2.0
        factors.append((of_user[:, 0] + of_ad[:, 0] + mixed) / np.float32(np.sqrt(3.0)))
    logit = np.empty((len(config.labels), len(shown)), np.float32)
    for index, label in enumerate(config.labels):
        if index == 0:
            logit[0] = shown.quality + np.float32(calibration.intercepts[0])
            continue
        own = relations.own_user[index][user] + relations.own_ad[index][ad]
        rho = label.relatedness
        logit[index] = rho * factors[config.groups.index(label.group)]
        logit[index] += np.float32(np.sqrt((1 - rho**2) / 2.0)) * own
        logit[index] *= _SPREAD
        logit[index] += np.float32(calibration.intercepts[index])
    return logit


def _solve(logit: np.ndarray, seen: np.ndarray, rate: float) -> float:
    """Finds by bisection the ``c`` for which ``mean(seen * sigmoid(logit + c))`` is ``rate``."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2.0
        below = float((seen * _sigmoid(logit + np.float32(middle))).mean(dtype=np.float64)) < rate
        low, high = (middle, high) if below else (low, middle)
    return low
