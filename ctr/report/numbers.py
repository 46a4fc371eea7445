"""How numbers are written in the report and in tables on the terminal."""

from __future__ import annotations

from typing import Any

NONE = "\N{EN DASH}"
#: The metrics of a table row: key, heading, format, and whether more is better (None: neither).
METRICS: tuple[tuple[str, str, str, bool | None], ...] = (
    ("log_loss", "log loss", ".5f", False),
    ("normalized_entropy", "norm. entropy", ".4f", False),
    ("auc", "AUC", ".4f", True),
    ("per_query_auc", "per-query AUC", ".4f", True),
    ("calibration", "calibration", ".4f", None),
)


def number(value: Any, form: str = ".4f") -> str:
    """Returns a number in the given format, or a dash for None."""
    return NONE if value is None else format(value, form)


def interval(values: dict[str, Any], form: str = ".3f") -> str:
    """Returns the calibration interval of a dict of metrics as text."""
    low, high = values.get("calibration_low"), values.get("calibration_high")
    return NONE if low is None or high is None else f"{low:{form}} to {high:{form}}"


def size(n_bytes: float | None) -> str:
    """Returns a size in binary units."""
    if n_bytes is None:
        return NONE
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.2f} GiB"


def duration(seconds: float | None) -> str:
    """Returns a duration such as ``1 h 02 min`` or ``4.2 s``."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def run_name(report: dict[str, Any]) -> str:
    """Returns the short name of a report or baseline: its name, recipe or id."""
    run = report.get("run", {})
    return str(report.get("name") or run.get("name") or run.get("recipe") or run.get("id") or "run")
