"""Counts and the best reachable log loss of a simulated stream, for ``world.json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctr import __version__
from ctr.simulator.event_log import LogCounts
from ctr.simulator.outcomes import Outcomes
from ctr.simulator.pages import Impressions
from ctr.simulator.stream import Stream


class Tally:
    """Sums over a stream, chunk by chunk."""

    def __init__(self, stream: Stream) -> None:
        n_labels = len(stream.world.config.labels)
        self._stream = stream
        self._impressions = 0
        self._events = np.zeros(n_labels, np.int64)
        self._positives = np.zeros(n_labels, np.int64)
        self._prob = np.zeros(n_labels)
        self._loss = np.zeros(n_labels)
        self._span_ms: list[int] = []

    def add(self, shown: Impressions, outcomes: Outcomes) -> None:
        """Adds one chunk."""
        label = outcomes.label
        # The loss is that of the outcome drawn: log p where 1, log(1 - p) where 0.
        likelihood = np.where(label, outcomes.prob, np.float32(1.0) - outcomes.prob)
        self._loss -= np.log(likelihood).sum(axis=1, dtype=np.float64)
        self._prob += outcomes.prob.sum(axis=1, dtype=np.float64)
        self._positives += label.sum(axis=1)
        self._events += outcomes.happened.sum(axis=1)
        self._impressions += len(shown)
        first = self._span_ms[0] if self._span_ms else int(shown.time_ms[0])
        self._span_ms = [first, int(shown.time_ms[-1])]

    def summary(self, logs: Mapping[str, LogCounts]) -> dict[str, Any]:
        """Returns the content of ``world.json``; losses are in nats per impression."""
        config, n = self._stream.world.config, self._impressions
        labels = {}
        for index, label in enumerate(config.labels):
            rate = self._positives[index] / n
            labels[label.name] = {
                "events": int(self._events[index]),
                "positives": int(self._positives[index]),
                "late_events": int(self._events[index] - self._positives[index]),
                "base_rate": float(rate),
                "mean_probability": float(self._prob[index] / n),
                "base_log_loss": _entropy(float(rate)),
                "bayes_log_loss": float(self._loss[index] / n),
            }
        ads = self._stream.world.ads
        span_s = config.days * 86400.0
        return {
            "version": __version__,
            "seed": self._stream.seed,
            "impressions": n,
            "pages": -(-n // config.slots),
            "first_time_ms": self._span_ms[0],
            "last_time_ms": self._span_ms[1],
            "ads": {
                "total": len(ads.birth_s),
                "born": int(((ads.birth_s >= 0) & (ads.birth_s < span_s)).sum()),
                "died": int((ads.death_s < span_s).sum()),
            },
            "labels": labels,
            "logs": {name: dataclasses.asdict(counts) for name, counts in logs.items()},
            "config": dataclasses.asdict(config),
        }


def _entropy(rate: float) -> float:
    """Log loss of predicting the base rate always."""
    if not 0.0 < rate < 1.0:
        return 0.0
    return -(rate * math.log(rate) + (1.0 - rate) * math.log1p(-rate))
