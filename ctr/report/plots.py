"""The figures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ctr.report.numbers import METRICS, run_name
from ctr.report.svg import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Look,
    inline_svg,
    legend_above,
    looks,
    themed,
)

#: Event times before this are no dates: the clock counts rows, or starts at zero.
RELATIVE_CLOCK_END_US = 30 * 86_400_000_000
MAX_FOREST_VALUES = 12
#: What is known rather than predicted.
_KNOWN = Look(INK, "--", "o")


def learning_curves(
    runs: Sequence[dict[str, Any]], truth: dict[str, Any] | None
) -> list[tuple[str, str]]:
    """Returns (title, svg) over event time for each metric that is defined somewhere.

    Args:
        runs: Reports or baselines; those without windows are left out.
        truth: The ``truth`` part of a report; its curves are drawn if it has ``metrics``.
    """
    known = truth if truth and truth.get("metrics", {}).get("windows") else None
    all_pairs = zip(runs, looks(len(runs)), strict=True)
    drawn = [pair for pair in all_pairs if pair[0]["metrics"].get("windows")]
    found = []
    for key, title in [*((key, title) for key, title, _, _ in METRICS), ("mean_prob", "rate")]:
        pairs = [pair for pair in drawn if _worth_drawing(pair[0], key)]
        if not pairs:
            continue
        with themed():
            figure = Figure(figsize=(5.2, 2.7), layout="constrained")
            axes = figure.add_subplot()
            shown = [_curve(axes, run, key, look, run_name(run)) for run, look in pairs]
            if known and key in ("log_loss", "normalized_entropy", "auc", "per_query_auc"):
                shown.append(_curve(axes, known, key, _KNOWN, "true probabilities", 1.0))
            if key == "calibration":
                shown += _band(axes, pairs[0][0], pairs[0][1].color)
                axes.axhline(1, color=INK, lw=0.8)
                shown.append(np.array([0.98, 1.02]))
            if key == "mean_prob":
                title = "rate, predicted and observed"
                shown.append(_curve(axes, pairs[0][0], "base_rate", _KNOWN, "observed", 1.0))
            _limits(axes, shown)
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if len(axes.get_legend_handles_labels()[1]) > 1:
                legend_above(figure, axes)
            found.append((title, inline_svg(figure, f"curve-{key}", f"{title} over event time")))
    return found


def _worth_drawing(run: dict[str, Any], key: str) -> bool:
    """Returns False where nothing is defined or a line would flatten all others.

    That line is the ranking, near one half, of a model that knows no more than the base rate.
    """
    entropy = run["metrics"]["lifetime"].get("normalized_entropy")
    if key.endswith("auc") and entropy is not None and entropy > 0.999:
        return False
    return any(window.get(key) is not None for window in run["metrics"]["windows"])


def _curve(
    axes: Axes, run: dict[str, Any], key: str, look: Look, label: str, width: float = 1.6
) -> NDArray[Any]:
    windows = [w for w in run["metrics"]["windows"] if w.get(key) is not None]
    if not windows:
        return np.zeros(0)
    value = np.array([w[key] for w in windows])
    weight = np.array([w["weight"] for w in windows])
    marker = look.marker if len(value) < 3 else None
    axes.plot(
        _time(axes, windows), value, color=look.color, ls=look.line, lw=width, label=label,
        marker=marker, ms=3,
    )  # fmt: skip
    # Windows with next to no examples would stretch the axis for nothing.
    return value[weight >= 0.2 * np.median(weight)]


def _band(axes: Axes, run: dict[str, Any], color: str) -> list[NDArray[Any]]:
    windows = [w for w in run["metrics"]["windows"] if w.get("calibration_low") is not None]
    low, high = ([w[f"calibration_{end}"] for w in windows] for end in ("low", "high"))
    axes.fill_between(_time(axes, windows), low, high, color=color, alpha=0.15, lw=0)
    return [np.quantile(low, [0.1]), np.quantile(high, [0.9])] if windows else []


def _time(axes: Axes, windows: list[dict[str, Any]]) -> list[Any]:
    """Returns where each window's middle lies on the x axis, and sets that axis up."""
    return event_time_axis(axes, [(w["start_us"] + w["end_us"]) / 2 for w in windows])


def event_time_axis(axes: Axes, times_us: Sequence[float]) -> list[Any]:
    """Sets the x axis up for event times.

    Args:
        axes: Whose x axis.
        times_us: Times to be drawn, in order, microseconds.

    Returns:
        The times as x values.
    """
    if not times_us or times_us[-1] < RELATIVE_CLOCK_END_US:
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.set_xlabel("event clock (µs, or rows)")
        return list(times_us)
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return [datetime.fromtimestamp(us / 1e6, UTC) for us in times_us]


def _limits(axes: Axes, shown: list[NDArray[Any]]) -> None:
    """Sets the y axis to the bulk of the values; the very first window is often far off."""
    values = np.concatenate(shown)
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    reach = 2.5 * (high - low)
    low, high = max(values.min(), middle - reach), min(values.max(), middle + reach)
    margin = 0.1 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - margin, high + margin)


def calibration_plot(runs: Sequence[dict[str, Any]]) -> str | None:
    """Returns observed against predicted rate by bucket, log-log with intervals, or None."""
    all_pairs = zip(runs, looks(len(runs)), strict=True)
    pairs = [pair for pair in all_pairs if pair[0].get("calibration_buckets")]
    if not pairs:
        return None
    with themed():
        figure = Figure(figsize=(5.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        ends = []
        for number, (run, look) in enumerate(pairs):
            buckets = [b for b in run["calibration_buckets"] if b["rate"] > 0]
            x = np.array([b["mean_prob"] for b in buckets])
            y = np.array([b["rate"] for b in buckets])
            below = y - np.array([b["rate_low"] for b in buckets])
            above = np.array([b["rate_high"] for b in buckets]) - y
            axes.errorbar(
                x, y, yerr=[below, above], color=look.color, fmt=look.marker, ms=5, lw=1.2,
                capsize=0, mec=PAPER, mew=0.5, label=run_name(run), zorder=3 + number,
            )  # fmt: skip
            ends += [*x, *y]
        span = np.array([min(ends, default=0.1) / 1.3, min(1.0, max(ends, default=0.5) * 1.3)])
        axes.plot(span, span, color=MUTED, lw=1, ls="--", zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(span)
        axes.set_ylim(span)
        _log_ticks(axes.xaxis, span)
        _log_ticks(axes.yaxis, span)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed rate")
        if len(pairs) > 1:
            axes.legend(loc="upper left")
        return inline_svg(figure, "calibration", "observed rate by predicted probability")


def slice_forest(report: dict[str, Any]) -> str | None:
    """Returns calibration with its interval per slice value as a forest plot, or None."""
    rows: list[tuple[str, dict[str, Any] | None]] = []
    for feature, values in report["metrics"].get("slices", {}).items():
        defined = [(k, v) for k, v in values.items() if v["calibration"] is not None]
        largest = sorted(defined, key=lambda item: -item[1]["weight"])[:MAX_FOREST_VALUES]
        if largest:
            rows += [(feature, None), *((_cut(name), value) for name, value in largest)]
    if not rows:
        return None
    with themed():
        figure = Figure(figsize=(5.2, max(1.8, 0.6 + 0.205 * len(rows))), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(0.98, 1.02, color=GRID, alpha=0.5, lw=0)
        axes.axvline(1, color=INK, lw=0.8)
        edges = [0.95, 1.05]
        for place, (_, value) in enumerate(rows):
            if value is None:
                continue
            low, high = value["calibration_low"], value["calibration_high"]
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=SERIES[0], lw=1.6, alpha=0.55)
            axes.plot(value["calibration"], place, "o", ms=5.5, color=SERIES[0], mec=PAPER, mew=0.5)
            edges.append(value["calibration"])
            if value["weight"] >= 0.02 * report["metrics"]["lifetime"]["weight"]:
                edges += [low or 1, high or 1]
        axes.set_xscale("log")
        span = np.array([min(edges) / 1.01, max(edges) * 1.01])
        axes.set_xlim(span)
        _log_ticks(axes.xaxis, span)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        for tick, (_, value) in zip(axes.get_yticklabels(), rows, strict=True):
            if value is None:
                tick.set_fontweight("bold")
                tick.set_color(INK)
        axes.set_ylim(len(rows) - 0.3, -0.7)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("predicted / observed (band: within 2 %)")
        return inline_svg(figure, "forest", "calibration by slice with 95 % intervals")


def _log_ticks(axis: Any, span: NDArray[np.float64]) -> None:
    """Sets round ticks on a log axis, however short: the default leaves short spans bare."""
    decades = np.log10(span[1] / span[0])
    if decades > 1.2:
        steps = [1, 2, 5] if decades < 3 else [1]
        ticks = [s * 10.0**e for e in range(-8, 3) for s in steps]
    else:
        step = 10.0 ** np.floor(np.log10(span[1] - span[0]))
        for factor in (0.1, 0.2, 0.5, 1.0, 2.0):
            ticks = list(np.arange(1, 2000) * step * factor)
            if sum(span[0] <= t <= span[1] for t in ticks) <= 7:
                break
    inside = [t for t in ticks if span[0] <= t <= span[1]]
    axis.set_ticks(inside)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float, _: Any = None) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def _cut(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
