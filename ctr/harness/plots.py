"""The figures of an experiment's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ctr.report.plots import event_time_axis
from ctr.report.svg import INK, PAPER, SERIES, inline_svg, legend_above, looks, themed


def forest(
    rows: Sequence[tuple[str, Mapping[str, Any], float | None]], key: str, title: str
) -> str:
    """Returns the differences of the arms with their intervals.

    Args:
        rows: Per arm its name, the metric's entry and the half width of the wider interval.
        key: Unique on the page.
        title: For readers that cannot see the figure.
    """
    with themed():
        figure = Figure(figsize=(5.2, 0.7 + 0.27 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, lw=0.8)
        for place, (_, entry, half) in enumerate(rows):
            value = entry["difference"]
            if half is not None:
                axes.plot(
                    [value - half, value + half],
                    [place, place],
                    color=SERIES[0],
                    lw=1.6,
                    alpha=0.55,
                )
            for one in entry["differences"]:
                axes.plot(one, place, "|", ms=6, color=SERIES[0], alpha=0.6)
            axes.plot(value, place, "o", ms=5.5, color=SERIES[0], mec=PAPER, mew=0.5)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=False)
        axes.locator_params(axis="x", nbins=5)
        return inline_svg(figure, f"forest-{_name(key)}", title)


def differences_over_time(arms: Sequence[Mapping[str, Any]], label: str, key: str) -> str | None:
    """Returns each arm's cumulative difference over event time, or None if there is none.

    A point is the difference over everything scored up to there, which is calm enough to show
    where a gain comes from; the last point is the table's number (up to the AUC's curvature).
    """
    with themed():
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=INK, lw=0.8)
        ends: list[float] = []
        for arm, look in zip(arms, looks(len(arms)), strict=True):
            curve = arm["labels"][label]["over_time"]
            found = curve.get(f"{key}_difference")
            if not found:
                continue
            values = np.array([np.nan if v is None else v for v in found])
            weight = np.where(np.isnan(values), 0.0, curve["weight"])
            total = np.cumsum(weight)
            mean = np.cumsum(np.nan_to_num(values) * weight) / np.maximum(total, 1e-300)
            ends_us = [start + curve["length_us"] for start in curve["start_us"]]
            axes.plot(
                event_time_axis(axes, ends_us), mean, color=look.color, ls=look.line,
                label=arm["name"],
            )  # fmt: skip
            ends += [float(v) for v in mean[len(mean) // 5 :]]
        if not ends:
            return None
        low, high = min([0.0, *ends]), max([0.0, *ends])
        margin = 0.15 * (high - low) or 1e-6
        axes.set_ylim(low - margin, high + margin)
        legend_above(figure, axes)
        title = f"difference in {key} over event time"
        return inline_svg(figure, f"time-{_name(label)}-{key}", title)


def _name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)
