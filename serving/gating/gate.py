"""Judges a version and writes the verdict into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctr.data import manifest as shards_of
from ctr.errors import ConfigError, CtrError, StreamError
from serving.blessing import blessed_versions, write_verdict
from serving.gating import measure
from serving.gating.measure import Recent
from serving.gating.thresholds import Check, Thresholds, judge
from serving.parity import last_rows
from serving.predictor import Predictor
from serving.versions import MANIFEST, newest_version


@dataclass(frozen=True)
class Verdict:
    """Outcome of a gate.

    Attributes:
        version: The version that was judged.
        baseline: The version it was compared with, if any.
        reasons: Why it is refused; empty for a blessed version.
        checks: All comparisons.
    """

    version: Path
    baseline: Path | None
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True if the version is blessed."""
        return not self.reasons


def gate(
    model: Path, data_dir: Path, thresholds: Thresholds, baseline: Path | None = None
) -> Verdict:
    """Judges a version and writes ``BLESSED`` or ``NOT_BLESSED`` into it.

    Args:
        model: A version, or a folder of versions, of which the newest is judged.
        data_dir: Recent labelled examples, written by ``octr ingest``.
        thresholds: What to keep to.
        baseline: The version now serving; by default the newest other blessed one beside it.

    Raises:
        ConfigError: there is no such version, or the baseline cannot be used.
        StreamError: the data cannot be read.
    """
    version = _version(model)
    if baseline is None:
        others = [v for v in blessed_versions(version.parent) if v != version]
        baseline = others[-1] if others else None
    else:
        baseline = _version(baseline)
    recent = read_recent(data_dir, thresholds.recent_examples)
    base = _load_baseline(baseline)
    checks: list[Check] = []
    reasons = _judge_all(version, recent, thresholds, base, checks)
    reasons += [str(check) for check in checks if not check.passed]
    verdict = Verdict(version, baseline, tuple(reasons), tuple(checks))
    write_verdict(version, verdict.passed, _content(verdict, thresholds))
    return verdict


def read_recent(data_dir: Path, n: int) -> Recent:
    """Reads the newest n examples with all that a gate looks at.

    Raises:
        StreamError: the data cannot be read, or there are none.
    """
    schema, shards = shards_of.load(data_dir)
    if not shards:
        raise StreamError(f"{data_dir} holds no examples to judge a model by.")
    beside = [name for name in ("weight", "position") if schema.has(name)]
    names = [f.name for f in schema.features if not f.cross]
    columns = dict.fromkeys([*names, *(label.name for label in schema.labels), *beside])
    rows = last_rows(data_dir, shards, list(columns), n)
    return Recent(schema, rows, max(shard.max_time_us for shard in shards))


def _version(model: Path) -> Path:
    if (model / MANIFEST).is_file() or model.name.isdecimal():
        return _existing(model)
    newest = newest_version(model)
    if newest is None:
        raise ConfigError(f"{model} holds no exported model. Make one with octr export.")
    return newest


def _existing(version: Path) -> Path:
    if not version.is_dir():
        raise ConfigError(f"{version} is no folder. Name a version, or a folder of versions.")
    return version


def _load_baseline(baseline: Path | None) -> Predictor | None:
    try:
        return Predictor.load(baseline) if baseline is not None else None
    except CtrError as error:
        raise ConfigError(f"the baseline cannot be used: {error}") from None


def _judge_all(
    version: Path,
    recent: Recent,
    thresholds: Thresholds,
    base: Predictor | None,
    checks: list[Check],
) -> list[str]:
    """Adds checks as far as the version lets itself be examined; returns what stopped it."""
    try:
        predictor = Predictor.load(version)
    except CtrError as error:
        return [str(error)]
    if predictor.encoder.schema.fingerprint() != recent.schema.fingerprint():
        return [
            f"the model takes schema {predictor.encoder.schema.fingerprint()}, the data have "
            f"{recent.schema.fingerprint()} ({recent.schema.name})"
        ]
    label = predictor.manifest["labels"][0]
    time_us = predictor.manifest["event_time_us"]
    measured = measure.progressive(predictor.manifest)
    measured["age_s"] = max(0.0, (recent.newest_us - time_us) / 1e6)
    measured["score_difference"] = measure.score_difference(predictor)
    measured |= measure.cost(predictor)
    prob = measure.scores(predictor, recent)
    of_scores, notes = measure.of_scores(prob, recent, label, thresholds.slice_examples)
    measured |= of_scores
    worst, where = measure.progressive_slices(predictor.manifest, thresholds.slice_examples)
    measured["progressive_slice_error"] = worst
    notes |= {"progressive_slice_error": where}
    if base is not None:
        if base.manifest["labels"] != predictor.manifest["labels"]:
            return [
                f"the model predicts {', '.join(predictor.manifest['labels'])}, the baseline "
                f"{', '.join(base.manifest['labels'])}"
            ]
        measured["behind_baseline_s"] = (base.manifest["event_time_us"] - time_us) / 1e6
        # With NaN among the scores there is nothing left to compare, and the check above fails.
        if not measured["not_finite"]:
            same = base.encoder.schema.fingerprint() == recent.schema.fingerprint()
            if not same:
                return ["the baseline has another schema: name a comparable one with --baseline"]
            measured |= measure.of_change(prob, measure.scores(base, recent), recent, label)
    checks += judge(measured, thresholds, notes)
    return []


def _content(verdict: Verdict, thresholds: Thresholds) -> Mapping[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "baseline": verdict.baseline.name if verdict.baseline else None,
        "reasons": list(verdict.reasons),
        "checks": [asdict(check) for check in verdict.checks],
        "thresholds": asdict(thresholds),
    }
