"""The experiment's table on the terminal, one line per arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctr.harness.experiment import BASE
from ctr.report.numbers import NONE

#: Columns of metrics: key, heading, digits.
METRICS = (
    ("log_loss", "log loss", 5),
    ("auc", "AUC", 4),
    ("per_query_auc", "per-query AUC", 4),
    ("calibration", "calibration", 3),
    ("slice_calibration_error", "slice calib. err.", 4),
)
COSTS = (("cpu_us_per_example", "train us/ex"), ("inference_us_per_example", "infer us/ex"))


def text_table(report: Mapping[str, Any], label: str | None = None) -> str:
    """Returns aligned text: the base's values, and each arm's differences to it.

    A difference is followed by the half width of the wider of its two 95 % intervals, that over
    time and that over seeds.
    """
    label = label or report["labels"][0]
    primary = report["primary"]
    columns = [m for m in METRICS if _defined(report, label, m[0])]
    if primary not in [key for key, _, _ in columns]:
        columns.insert(0, (primary, primary.replace("_", " "), 5))
    heads = ["arm", *(("* " if key == primary else "") + title for key, title, _ in columns)]
    rows = [[*heads, "PD", *(title for _, title in COSTS), "verdict"]]
    for arm in report["arms"]:
        metrics = arm["labels"][label]["metrics"]
        row = [arm["name"]]
        row += [metric_cell(metrics[key], digits) for key, _, digits in columns]
        row.append(pd_cell(arm["prediction_difference"]))
        row += [cost_cell(arm["costs"][key]) for key, _ in COSTS]
        row.append(metrics[primary].get("verdict", "" if arm["name"] == BASE else NONE))
        rows.append(row)
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as text; the first and the last column stand left, others right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _defined(report: Mapping[str, Any], label: str, key: str) -> bool:
    return any(arm["labels"][label]["metrics"][key]["value"] is not None for arm in report["arms"])


def metric_cell(entry: Mapping[str, Any], digits: int) -> str:
    """Returns a value, or a difference with the half width of its wider interval."""
    if entry["value"] is None:
        return NONE
    if "difference" not in entry:
        return f"{entry['value']:.{digits}f}"
    half = half_width(entry)
    text = f"{entry['difference']:+.{digits}f}"
    return text if half is None else f"{text} ±{half:.{digits}f}"


def half_width(entry: Mapping[str, Any]) -> float | None:
    """Returns half the width of the wider of the intervals over time and over seeds."""
    ends = [entry[key] for key in ("over_time", "over_seeds") if entry.get(key)]
    widths = [(i["high"] - i["low"]) / 2 for i in ends if i["low"] is not None]
    return max(widths, default=None)


def pd_cell(entry: Mapping[str, Any]) -> str:
    """Returns the relative prediction difference between seeds in percent."""
    if entry.get("value") is None:
        return NONE
    text = f"{100 * entry['value']:.2f}%"
    if entry.get("low") is not None:
        text += f" ±{100 * (entry['high'] - entry['low']) / 2:.2f}"
    return text


def cost_cell(entry: Mapping[str, Any]) -> str:
    """Returns a cost, or its ratio to the base's."""
    if entry["value"] is None:
        return NONE
    return f"x{entry['ratio']:.2f}" if "ratio" in entry else f"{entry['value']:.2f}"
