"""The metrics of reports as a plain-text table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctr.report.html import told_apart
from ctr.report.numbers import METRICS, number


def metrics_table(reports: Sequence[dict[str, Any]]) -> str:
    """Returns aligned text: every run and baseline over the whole stream and its second half."""
    rows = [["run", "span", "examples", *(title for _, title, _, _ in METRICS), "CPU us/example"]]
    runs = [run for report in reports for run in (report, *report.get("baselines", []))]
    for run in told_apart(runs):
        for key, span in (("lifetime", "all"), ("second_half", "second half")):
            values = run["metrics"].get(key)
            if not values:
                continue
            cost = run.get("cpu_us_per_example") if key == "lifetime" else None
            rows.append(
                [
                    run["name"],
                    span,
                    f"{values['examples']:,}",
                    *(number(values.get(metric), form) for metric, _, form, _ in METRICS),
                    number(cost, ".1f"),
                ]
            )
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
