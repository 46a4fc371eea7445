"""Compares the arms of an experiment: differences, intervals and verdicts as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.errors import CtrError
from ctr.harness import scores
from ctr.harness.experiment import BASE, PRIMARY, Experiment
from ctr.harness.runner import Unit
from ctr.harness.stats import (
    Interval,
    block_bootstrap,
    holm,
    joint_p,
    median_interval,
    pair_differences,
    pair_interval,
    t_interval,
    verdict,
)

FORMAT = 1
KIND = "replay"
REPORT = "report.json"
#: Measured per unit rather than computed from predictions: result key -> less is better.
COSTS = ("cpu_us_per_example", "inference_us_per_example", "parameters", "peak_memory_bytes")
ALPHA = 0.05


@dataclass(frozen=True)
class UnitResult:
    """What a unit left behind.

    Attributes:
        record: Its ``result.json``.
        sums: Sums per time bucket by label.
        prob: float32[n, T], predictions of the scored examples.
    """

    record: dict[str, Any]
    sums: dict[str, dict[str, NDArray[np.float64]]]
    prob: NDArray[np.float32]

    @classmethod
    def read(cls, folder: Path, record: dict[str, Any]) -> UnitResult:
        """Reads the arrays beside a ``result.json``."""
        sums: dict[str, dict[str, NDArray[np.float64]]] = {}
        with np.load(folder / "sums.npz") as stored:
            for name in stored.files:
                label, _, key = name.rpartition("/")
                sums.setdefault(label, {})[key] = stored[name]
        return cls(record, sums, np.load(folder / "predictions.npy", mmap_mode="r"))


def compare(
    experiment: Experiment,
    units: Mapping[str, Sequence[Unit]],
    costs: Mapping[str, Unit],
    work: Path,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the content of ``report.json``.

    Args:
        experiment: The experiment.
        units: The units of each arm, one per seed.
        costs: The unit that timed an arm against the base, by arm.
        work: Folder of their folders.
        facts: Further facts on the run: stream, versions, choices of the tuning, failures.
    """
    found = {}
    for arm, planned in units.items():
        pairs = [(unit, unit.result(work)) for unit in planned]
        done = [UnitResult.read(u.folder(work), r) for u, r in pairs if r is not None]
        if done:
            found[arm] = done
    base = found.get(BASE, [])
    labels: list[str] = next((done[0].record["labels"] for done in found.values()), [])
    arms = [_report(_Arm(name, results, base), labels) for name, results in found.items()]
    for entry in arms:
        timed = costs[entry["name"]].result(work) if entry["name"] in costs else None
        if timed is not None:
            _use_paired_costs(entry, timed["ratios"], base)
    _decide(arms, experiment.primary, labels)
    return {
        "format": FORMAT,
        "kind": KIND,
        "name": experiment.name,
        "description": experiment.description,
        "primary": experiment.primary,
        "labels": labels,
        "alpha": ALPHA,
        "arms": arms,
        **facts,
    }


@dataclass(frozen=True)
class _Arm:
    """The results of an arm, one per seed, beside those of the base."""

    name: str
    results: Sequence[UnitResult]
    base: Sequence[UnitResult]

    @property
    def pairs(self) -> list[tuple[UnitResult, UnitResult]]:
        """Results and those of the base with the same seed."""
        at_base = {r.record["seed"]: r for r in self.base}
        return [(r, at_base[r.record["seed"]]) for r in self.results if r.record["seed"] in at_base]


def _report(arm: _Arm, labels: Sequence[str]) -> dict[str, Any]:
    first = arm.results[0].record
    return {
        "name": arm.name,
        "seeds": [r.record["seed"] for r in arm.results],
        "examples": first["examples"],
        "scored": first["scored"],
        "labels": {label: _label(label, arm) for label in labels},
        "costs": {key: _cost(key, arm) for key in COSTS},
        "learned_share": first["learned_share"],
        "effective_share": first["effective_share"],
        "prediction_difference": _replicas(arm),
        "recipe": first["recipe"],
        "probes": {str(r.record["seed"]): r.record["probes"] for r in arm.results},
    }


def _label(label: str, arm: _Arm) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for key, metric in scores.METRICS.items():
        values = [r.record["metrics"][label][key] for r in arm.results]
        known = [v for v in values if v is not None]
        entry: dict[str, Any] = {"values": values, "value": _mean(known)}
        if len(known) > 1:
            entry["seed_deviation"] = float(np.std(known, ddof=1))
        if arm.name != BASE and arm.pairs and known:
            entry |= _difference(label, key, metric, arm.pairs)
        metrics[key] = entry
    return {"metrics": metrics, "over_time": _over_time(label, arm)}


def _difference(
    label: str,
    key: str,
    metric: Callable[[Any], NDArray[np.float64]],
    pairs: Sequence[tuple[UnitResult, UnitResult]],
) -> dict[str, Any]:
    per_seed = [
        a.record["metrics"][label][key] - b.record["metrics"][label][key]
        for a, b in pairs
        if a.record["metrics"][label][key] is not None
        and b.record["metrics"][label][key] is not None
    ]
    if not per_seed:
        return {}
    seeds = t_interval(per_seed)
    # Every seed scores the same examples: their sums are averaged, bucket by bucket, so that the
    # bootstrap's spread is that of time alone.
    time = block_bootstrap(
        _needed(key, _pooled(label, [a for a, _ in pairs])),
        _needed(key, _pooled(label, [b for _, b in pairs])),
        metric,
    )
    return {
        "differences": per_seed,
        "difference": seeds.value,
        "over_seeds": asdict(seeds),
        "over_time": asdict(time),
        "p": joint_p(seeds, time),
    }


_PARTS = {"auc": "cells", "per_query_auc": "query", "slice_calibration_error": "slices"}


def _needed(key: str, sums: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    part = _PARTS.get(key, "scalar")
    return {part: sums[part]}


def _pooled(label: str, results: Sequence[UnitResult]) -> dict[str, NDArray[np.float64]]:
    parts = [r.sums[label] for r in results]
    return {key: np.mean([part[key] for part in parts], axis=0) for key in parts[0]}


def _over_time(label: str, arm: _Arm) -> dict[str, Any]:
    """Returns the metrics per time bucket, mean over seeds, for plots."""
    own = _pooled(label, arm.results)
    buckets = arm.results[0].record["buckets"]
    n = len(own["scalar"])
    curve: dict[str, Any] = {
        "start_us": [buckets["start_us"] + i * buckets["length_us"] for i in range(n)],
        "length_us": buckets["length_us"],
        "weight": own["scalar"][:, 0].tolist(),
    }
    other = _pooled(label, [b for _, b in arm.pairs]) if arm.pairs else None
    for key in ("log_loss", "auc", "per_query_auc", "calibration"):
        values = scores.METRICS[key](own)
        curve[key] = _plain(values)
        if other is not None:
            curve[f"{key}_difference"] = _plain(values - scores.METRICS[key](other))
    return curve


def _cost(key: str, arm: _Arm) -> dict[str, Any]:
    values = [_cost_value(r, key) for r in arm.results]
    known = [v for v in values if v is not None]
    entry: dict[str, Any] = {"values": values, "value": _mean(known)}
    if arm.name == BASE:
        return entry
    logs = [
        math.log(a / b)
        for a, b in ((_cost_value(x, key), _cost_value(y, key)) for x, y in arm.pairs)
        if a and b
    ]
    return entry | (_ratio(t_interval(logs)) if logs else {})


def _ratio(logs: Interval) -> dict[str, Any]:
    """Returns a ratio with its interval from that of its logarithm."""
    ends = [
        None if x is None else math.exp(min(max(x, -50.0), 50.0)) for x in (logs.low, logs.high)
    ]
    return {
        "ratio": math.exp(logs.value),
        "ratio_low": ends[0],
        "ratio_high": ends[1],
        "ratio_p": logs.p,
    }


def _use_paired_costs(
    arm: dict[str, Any], ratios: Mapping[str, Sequence[float]], base: Sequence[UnitResult]
) -> None:
    """Puts the ratios of the rounds in the place of those between processes."""
    share = base[0].record["learned_share"] if base else 1.0
    for key, rounds in ratios.items():
        # Rows that a sampler leaves out cost next to nothing to learn; all are predicted.
        learned = arm["learned_share"] / share if key == "cpu_us_per_example" else 1.0
        arm["costs"][key] |= _ratio(median_interval(np.log(np.asarray(rounds) * learned)))
        arm["costs"][key]["rounds"] = len(rounds)


def _cost_value(result: UnitResult, key: str) -> float | None:
    value = result.record[key]
    return float(value["table"] + value["dense"]) if isinstance(value, dict) else value


def _replicas(arm: _Arm) -> dict[str, Any]:
    own = pair_differences([r.prob[:, 0] for r in arm.results])
    entry: dict[str, Any] = {"pairs": own}
    interval = pair_interval(own, len(arm.results))
    if interval is None:
        return entry
    entry |= asdict(interval)
    same = [r.record["seed"] for r in arm.results] == [r.record["seed"] for r in arm.base]
    if arm.name != BASE and same:
        other = pair_differences([r.prob[:, 0] for r in arm.base])
        paired = [a - b for a, b in zip(own, other, strict=True)]
        difference = pair_interval(paired, len(arm.results))
        entry["difference"] = None if difference is None else asdict(difference)
    return entry


def _decide(arms: list[dict[str, Any]], primary: str, labels: Sequence[str]) -> None:
    """Adds Holm-adjusted p-values and verdicts on the primary metric of the first label."""
    if not labels:
        return
    entries = [
        entry
        for arm in arms
        if arm["name"] != BASE and "p" in (entry := arm["labels"][labels[0]]["metrics"][primary])
    ]
    for entry, adjusted in zip(entries, holm([e["p"] for e in entries]), strict=True):
        entry["adjusted_p"] = adjusted
        entry["verdict"] = verdict(entry["difference"], adjusted, PRIMARY[primary], ALPHA)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def read_report(path: Path) -> dict[str, Any]:
    """Reads the report of a replay.

    Args:
        path: The replay's folder, or its ``report.json``.

    Raises:
        CtrError: it is missing, damaged or of another format.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind, number = found["kind"], found["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CtrError(f"{file} is no report of octr replay ({error}). Run it again.") from None
    if (kind, number) != (KIND, FORMAT):
        raise CtrError(f"{file}: expected a replay of format {FORMAT}, received {kind} {number}.")
    return found
