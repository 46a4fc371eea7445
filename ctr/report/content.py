"""What ``report.json`` holds, and how it is written and read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctr.data.manifest import write_atomically
from ctr.errors import CtrError
from ctr.metrics.progressive import ProgressiveMetrics

REPORT = "report.json"
FORMAT = 1


def build_report(
    *,
    run: Mapping[str, Any],
    metrics: ProgressiveMetrics,
    examples: int,
    cpu_us_per_example: float | None,
    peak_memory_bytes: int,
    throughput: Mapping[str, Any] | None = None,
    counts: Mapping[str, int] | None = None,
    truth: Mapping[str, Any] | None = None,
    baselines: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns the content of ``report.json``: plain JSON data, undefined numbers null.

    Args:
        run: What was run: ``id``, ``recipe``, ``label``, ``seed``, ``schema`` (fingerprint),
            ``schema_name``, ``data``, ``config``, ``versions`` and anything else worth keeping.
        metrics: Progressive metrics of the label.
        examples: Rows read, with and without a known label.
        cpu_us_per_example: CPU time of the process, user and system.
        peak_memory_bytes: Largest resident size.
        throughput: ``examples_per_second``, ``cpu_s``, ``wall_s`` and the like.
        counts: Numbers by reason, such as missing values and truncated bags.
        truth: Where the true probabilities are known: ``bayes_log_loss`` and other numbers, and
            optionally ``metrics``, the :func:`metrics_section` of the true probabilities.
        baselines: Other models on the same examples, each ``{"name": ..., "metrics": ...}`` with
            a :func:`metrics_section`, and optionally ``cpu_us_per_example`` and
            ``calibration_buckets``.
    """
    report = {
        "format": FORMAT,
        "run": dict(run),
        "examples": examples,
        "cpu_us_per_example": cpu_us_per_example,
        "peak_memory_bytes": peak_memory_bytes,
        "throughput": dict(throughput or {}),
        "metrics": metrics_section(metrics),
        "calibration_buckets": metrics.totals().calibration_buckets(20),
        "counts": dict(counts or {}),
        "baselines": list(baselines),
    }
    if truth is not None:
        report["truth"] = dict(truth)
    ready: dict[str, Any] = json_ready(report)
    return ready


def metrics_section(metrics: ProgressiveMetrics) -> dict[str, Any]:
    """Returns the ``metrics`` part of a report.

    ``second_half`` covers the windows that start after half of the examples, when the model has
    left its warm-up behind.
    """
    windows = metrics.windows()
    before = [window["examples_total"] - window["examples"] for window in windows]
    half = windows[-1]["examples_total"] / 2 if windows else 0
    late = [window for window, n in zip(windows, before, strict=True) if n >= half]
    return {
        "window_us": metrics.window_us,
        "lifetime": metrics.lifetime(),
        "second_half": metrics.since(late[0]["start_us"]) if late else None,
        "windows": windows,
        "slices": metrics.slices(),
    }


def json_ready(value: Any) -> Any:
    """Returns ``value`` as plain JSON data: NumPy scalars and arrays unpacked, NaN and inf null."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)


def save_report(run_dir: str | Path, report: Mapping[str, Any]) -> Path:
    """Writes ``report.json`` into the run's folder atomically and returns its path."""
    path = Path(run_dir) / REPORT
    text = json.dumps(json_ready(report), indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())
    return path


def load_report(run: str | Path) -> dict[str, Any]:
    """Reads the report of a run.

    Args:
        run: The run's folder, or the path of a ``report.json``.

    Raises:
        CtrError: there is none, it is damaged, or another format wrote it.
    """
    path = Path(run)
    path = path / REPORT if path.is_dir() or path.suffix != ".json" else path
    if not path.is_file():
        raise CtrError(f"no report at {path}. Pass a run folder that `octr train` has finished.")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        found = report["format"]
        report["run"], report["metrics"]["lifetime"], report["metrics"]["windows"]
    except (ValueError, KeyError, TypeError) as error:
        raise CtrError(
            f"{path} is not a report ({type(error).__name__}: {error}). Train again, or restore "
            "the file."
        ) from None
    if found != FORMAT:
        raise CtrError(f"{path}: expected format {FORMAT}, received {found}. Train again.")
    return report
