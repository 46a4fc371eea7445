"""The numbers of trained and scored models as Markdown: the median over seeds, and the range."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

#: Column title, key of the metrics, decimals.
METRICS = (
    ("log loss", "log_loss", 4),
    ("AUC", "auc", 4),
    ("per-query AUC", "per_query_auc", 4),
    ("calibration", "calibration", 3),
)
SPANS = (("all rows", "all"), ("second half", "second_half"))


def quality_tables(trainings: Sequence[dict[str, Any]]) -> str:
    """Returns all tables: quality, cost, difference to the first recipe, and slices.

    Args:
        trainings: What :func:`ctr.bench.quality.train_once` returned, recipes one after another.
    """
    by_recipe: dict[str, list[dict[str, Any]]] = {}
    for training in trainings:
        by_recipe.setdefault(training["recipe"], []).append(training)
    tables = [_quality(by_recipe), _cost(by_recipe)]
    if len(by_recipe) > 1:
        tables.append(_differences(by_recipe))
    tables += [_slices(by_recipe, feature) for feature in trainings[0]["slices"]]
    return "\n\n".join(tables)


def spread(values: Sequence[float | None], decimals: int) -> str:
    """Returns the median and, where they differ from it, the extremes: ``0.51 (0.50-0.52)``."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    middle, low, high = (
        f"{value:.{decimals}f}" for value in (statistics.median(known), min(known), max(known))
    )
    return middle if low == high else f"{middle} ({low}-{high})"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _quality(by_recipe: dict[str, list[dict[str, Any]]]) -> str:
    # A stream without queries has no per-query AUC, hence no column for it.
    first = next(iter(by_recipe.values()))[0]["all"]
    metrics = [metric for metric in METRICS if metric[1] in first]
    body = []
    for span, key in SPANS:
        for recipe, runs in by_recipe.items():
            cells = [spread([run[key][name] for run in runs], n) for _, name, n in metrics]
            body.append([span, f"{runs[0][key]['examples']:,}", recipe, *cells])
    return table(["span", "rows", "recipe", *(title for title, _, _ in metrics)], body)


def _cost(by_recipe: dict[str, list[dict[str, Any]]]) -> str:
    columns: list[tuple[str, Callable[[dict[str, Any]], float | None], int]] = [
        ("CPU us/example", lambda run: run["cpu_us_per_example"], 1),
        ("process: CPU s", lambda run: run["cpu_s"], 1),
        ("wall s", lambda run: run["wall_s"], 1),
        ("peak memory MB", lambda run: run["peak_memory_bytes"] / 1e6, 0),
    ]
    body = [
        [recipe, str(len(runs)), *(spread([get(run) for run in runs], n) for _, get, n in columns)]
        for recipe, runs in by_recipe.items()
    ]
    return table(["recipe", "seeds", *(title for title, _, _ in columns)], body)


def _differences(by_recipe: dict[str, list[dict[str, Any]]]) -> str:
    (base, references), *others = by_recipe.items()
    body = []
    for recipe, runs in others:
        for span, key in SPANS:
            cells = []
            for name, sign in (("log_loss", -1), ("auc", 1)):
                pairs = list(zip(references, runs, strict=True))
                gains = [b[key][name] - a[key][name] for a, b in pairs if a[key][name] is not None]
                wins = sum(sign * gain > 0 for gain in gains)
                middle = statistics.median(gains) if gains else 0.0
                cells += [f"{middle:+.5f}", f"{wins} of {len(gains)}"]
            body.append([f"{recipe} - {base}", span, *cells])
    head = ["difference", "span", "log loss", "seeds better", "AUC", "seeds better"]
    return table(head, body)


def _slices(by_recipe: dict[str, list[dict[str, Any]]], feature: str) -> str:
    """Calibration over the second half by value; the interval is that of the median seed."""
    first = next(iter(by_recipe.values()))[0]["slices"][feature]
    body = []
    for value, metrics in first.items():
        cells = [value, f"{metrics['examples']:,}", f"{metrics['base_rate']:.3f}"]
        for runs in by_recipe.values():
            found = [run["slices"][feature][value] for run in runs]
            cells += [spread([one["calibration"] for one in found], 3), _interval(found)]
        body.append(cells)
    head = [f"{feature}, second half", "rows", "label rate"]
    for recipe in by_recipe:
        head += [f"{recipe} calibration", "95 % interval"]
    return table(head, body)


def _interval(found: Sequence[dict[str, Any]]) -> str:
    known = sorted(
        (one for one in found if one["calibration"] is not None), key=lambda v: v["calibration"]
    )
    if not known:
        return ""
    middle = known[(len(known) - 1) // 2]
    return f"{middle['calibration_low']:.3f}-{middle['calibration_high']:.3f}"
