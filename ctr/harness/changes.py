"""The Factory Floor paper's table for the user's own stream: what each arm changes, in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctr.harness.experiment import BASE, PRIMARY
from ctr.harness.table import aligned, half_width
from ctr.report.numbers import NONE

#: File in the replay's folder that holds the table in Markdown.
CHANGES = "changes.md"
NOTE = (
    "Changes in percent of the base's value (calibration error |log(sum p / sum y)|: in "
    "percentage points), with half of the wider 95 % interval. Words say where it leaves out 0, "
    "each cell on its own: one in twenty does so by chance."
)


@dataclass(frozen=True)
class Change:
    """A change in percent, or percentage points, with its interval.

    Attributes:
        value: The change.
        low: Lower end; None where there is no interval.
        high: Upper end.
        more_is_better: Decides the word.
    """

    value: float
    low: float | None
    high: float | None
    more_is_better: bool = False

    @property
    def word(self) -> str:
        """``better`` or ``worse`` where the interval leaves out 0, else empty."""
        if self.low is None or self.high is None or self.low <= 0.0 <= self.high:
            return ""
        return "better" if (self.value > 0) == self.more_is_better else "worse"

    def __str__(self) -> str:
        digits = 2 if abs(self.value) < 9.995 else 1
        text = f"{self.value:+.{digits}f}"
        if self.low is not None and self.high is not None:
            text += f" ±{(self.high - self.low) / 2:.{digits}f}"
        return f"{text} {self.word}".rstrip()


#: Headings in the table's order, with the format of the base's value.
_FORMATS = {
    "per-query AUCLoss": "{:.4f}",
    "log loss": "{:.5f}",
    "calibration error": "{:.4f}",
    "PD": "{:.2%}",
    "train CPU": "{:.2f} us",
    "inference CPU": "{:.2f} us",
    "memory": "{:,.0f} MiB",
    "parameters": "{:,.0f}",
}
#: Heading and the cost's key of the columns that are ratios.
_RATIOS = (
    ("train CPU", "cpu_us_per_example"),
    ("inference CPU", "inference_us_per_example"),
    ("memory", "peak_memory_bytes"),
    ("parameters", "parameters"),
)


def changes(arm: Mapping[str, Any], base: Mapping[str, Any], label: str) -> dict[str, Change]:
    """Returns what an arm changes, by heading; what is undefined is left out.

    Args:
        arm: An arm of the report.
        base: The report's base.
        label: The label.
    """
    own, others = arm["labels"][label]["metrics"], base["labels"][label]["metrics"]
    found: dict[str, Change | None] = {}
    auc = others["per_query_auc"]["value"]
    if auc is not None and auc < 1.0:
        # AUCLoss is 1 - AUC: its relative change is that of the AUC, seen from the other end.
        found["per-query AUCLoss"] = _metric(own["per_query_auc"], auc - 1.0, False)
    loss = others["log_loss"]["value"]
    if loss:
        found["log loss"] = _metric(own["log_loss"], loss, PRIMARY["log_loss"])
    found["calibration error"] = _metric(own["calibration_error"], 1.0, False)
    pd = arm["prediction_difference"].get("difference")
    before = base["prediction_difference"].get("value")
    if pd is not None and before:
        found["PD"] = _scaled(pd["value"], pd["low"], pd["high"], before)
    for heading, key in _RATIOS:
        cost = arm["costs"][key]
        if "ratio" in cost:
            low, high = cost["ratio_low"], cost["ratio_high"]
            found[heading] = Change(
                100 * (cost["ratio"] - 1),
                None if low is None else 100 * (low - 1),
                None if high is None else 100 * (high - 1),
            )
    return {heading: change for heading, change in found.items() if change is not None}


def _metric(entry: Mapping[str, Any], scale: float, more_is_better: bool) -> Change | None:
    if entry.get("difference") is None:
        return None
    value, half = entry["difference"], half_width(entry)
    low, high = (None, None) if half is None else (value - half, value + half)
    return _scaled(value, low, high, scale, more_is_better)


def _scaled(
    value: float, low: float | None, high: float | None, scale: float, more_is_better: bool = False
) -> Change:
    if low is None or high is None:
        return Change(100 * value / scale, None, None, more_is_better)
    ends = sorted((100 * low / scale, 100 * high / scale))
    return Change(100 * value / scale, ends[0], ends[1], more_is_better)


def change_rows(report: Mapping[str, Any], label: str | None = None) -> list[list[str]]:
    """Returns the table's cells, headings first; nothing without a base or an arm beside it.

    The last columns are the share of examples that is learned and the effective share
    (sum w)^2 / (n sum w^2) of those, both of samplers that drop rows.
    """
    label = label or report["labels"][0]
    arms = {arm["name"]: arm for arm in report["arms"]}
    base = arms.pop(BASE, None)
    if base is None or not arms:
        return []
    found = {name: changes(arm, base, label) for name, arm in arms.items()}
    shown = {heading for row in found.values() for heading in row}
    heads = [heading for heading in _FORMATS if heading in shown]
    sampled = any(arm["learned_share"] != 1.0 for arm in arms.values())
    rows = [["arm", *heads, *(["learned", "effective"] if sampled else [])]]
    rows.append(["base", *_values(base, label, heads), *([NONE, NONE] if sampled else [])])
    for name, row in found.items():
        cells = [str(row[heading]) if heading in row else NONE for heading in heads]
        if sampled:
            shares = (arms[name]["learned_share"], arms[name]["effective_share"])
            cells += [NONE, NONE] if shares[0] == 1.0 else [f"{100 * x:.0f}%" for x in shares]
        rows.append([name, *cells])
    return rows


def _values(base: Mapping[str, Any], label: str, heads: Sequence[str]) -> list[str]:
    metrics, costs = base["labels"][label]["metrics"], base["costs"]
    auc = metrics["per_query_auc"]["value"]
    known = {heading: costs[key]["value"] for heading, key in _RATIOS}
    known |= {
        "per-query AUCLoss": None if auc is None else 1 - auc,
        "log loss": metrics["log_loss"]["value"],
        "calibration error": metrics["calibration_error"]["value"],
        "PD": base["prediction_difference"].get("value"),
        "memory": known["memory"] / 2**20,
    }
    return [NONE if known[h] is None else _FORMATS[h].format(known[h]) for h in heads]


def text_changes(report: Mapping[str, Any]) -> str:
    """Returns the table of the first label as aligned text below its note."""
    rows = change_rows(report)
    return f"\n{NOTE}\n{aligned(rows)}" if rows else ""


def markdown(report: Mapping[str, Any]) -> str:
    """Returns the table of every label in Markdown."""
    parts = []
    for label in report["labels"]:
        rows = change_rows(report, label)
        if not rows:
            continue
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + " --- |" * len(rows[0]))
        parts += [f"Label `{label}`. {NOTE}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
