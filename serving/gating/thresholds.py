"""What a version must keep to, and the comparison of what was measured with it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ctr.errors import ConfigError, nearest


@dataclass(frozen=True)
class Thresholds:
    """Bounds by name; ``max_x`` and ``min_x`` bound the measurement ``x``, inclusively.

    Of the version alone, progressively (each example predicted before it was learned):

    Attributes:
        min_examples: Examples learned from.
        max_normalized_entropy: Log loss over that of always predicting the base rate.
        min_auc: Area under the ROC curve.
        max_calibration_error: The larger of predicted / clicked and clicked / predicted, less 1.
        max_progressive_slice_error: The same of the worst slice, as far as its 95 % interval
            proves it.
        max_age_s: Event time between the last example learned and the newest of the data, s.

    Of the version alone, on the newest labelled examples of the data:

    Attributes:
        max_not_finite: Probabilities that are NaN or infinite.
        min_prob_std: Standard deviation of the probabilities; 0 is a constant.
        max_recent_calibration_error: As ``max_calibration_error``. A frozen model fits the moment
            it was exported at, so this grows with the drift of the base rate over the examples.
        max_slice_calibration_error: Of the worst slice against all examples, as far as its 95 %
            interval proves it: drift that all slices share is left out.
        max_score_difference: Of a probability of the manifest's check scores.

    Against the baseline, on the same examples:

    Attributes:
        max_behind_baseline_s: Event time by which the baseline is newer, s.
        max_log_loss_increase: Relative to the baseline's log loss.
        max_auc_decrease: Absolute.
        max_prediction_difference: Mean of |a - b| / ((a + b) / 2).

    Of cost:

    Attributes:
        max_latency_ms_p50: Median of a call with one row, ms.
        max_latency_ms_p99: 99th percentile of the same calls, ms.
        max_size_mb: All files of the version, 10^6 bytes.

    How it is measured:

    Attributes:
        recent_examples: Newest examples of the data to score.
        slice_examples: Examples a slice needs before its calibration is judged.
    """

    min_examples: float = 1_000
    max_normalized_entropy: float = 1.0
    min_auc: float = 0.5
    max_calibration_error: float = 0.1
    max_progressive_slice_error: float = 0.2
    max_age_s: float = 86_400.0
    max_not_finite: float = 0
    min_prob_std: float = 1e-4
    max_recent_calibration_error: float = 0.5
    max_slice_calibration_error: float = 0.2
    max_score_difference: float = 1e-6
    max_behind_baseline_s: float = 0.0
    max_log_loss_increase: float = 0.01
    max_auc_decrease: float = 0.01
    max_prediction_difference: float = 0.5
    max_latency_ms_p50: float = 50.0
    max_latency_ms_p99: float = 500.0
    max_size_mb: float = 4_000.0
    recent_examples: int = 10_000
    slice_examples: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                raise ConfigError(f"threshold {field.name}: expected a number, received {value!r}.")
        if self.recent_examples < 1:
            raise ConfigError(f"recent_examples must be positive, received {self.recent_examples}.")


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: Name of the threshold.
        value: What was measured; None if it could not be.
        bound: The threshold.
        passed: Outcome.
        note: What else there is to say, such as which slice was worst.
    """

    name: str
    value: float | None
    bound: float
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        sign = ">=" if self.name.startswith("min_") else "<="
        value = "undefined" if self.value is None else f"{self.value:.6g}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.name[4:]} {value}, wanted {sign} {self.bound:.6g}{note}"


def judge(
    measured: Mapping[str, float | None], thresholds: Thresholds, notes: Mapping[str, str] = {}
) -> list[Check]:
    """Compares measurements with their thresholds.

    Args:
        measured: By name without ``max_`` or ``min_``. What is left out is not judged; None and
            NaN are undefined, and fail.
        thresholds: The bounds.
        notes: Further words by the same names.

    Raises:
        ConfigError: there is no threshold for a measurement.
    """
    bounds = {f.name[4:]: f.name for f in fields(Thresholds) if f.name[:4] in ("max_", "min_")}
    checks = []
    for name, value in measured.items():
        if name not in bounds:
            raise ConfigError(f"no threshold bounds {name!r}: {nearest(name, bounds)}")
        bound = getattr(thresholds, bounds[name])
        defined = value is not None and not math.isnan(value)
        if bounds[name].startswith("min_"):
            passed = defined and value >= bound  # type: ignore[operator]
        else:
            passed = defined and value <= bound  # type: ignore[operator]
        # JSON has no infinity.
        shown = value if defined and math.isfinite(value) else None  # type: ignore[arg-type]
        checks.append(Check(bounds[name], shown, bound, passed, notes.get(name, "")))
    return checks


def load_thresholds(path: Path | None) -> Thresholds:
    """Reads a TOML page of thresholds; what it leaves out keeps its default.

    Raises:
        ConfigError: it cannot be read, has an unknown key, or a value is no number.
    """
    if path is None:
        return Thresholds()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from None
    known = [f.name for f in fields(Thresholds)]
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: no threshold {key!r}: {nearest(key, known)}")
    return Thresholds(**table)
