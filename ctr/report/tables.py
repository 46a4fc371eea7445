"""The tables and headline numbers of the report as HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ctr.report.numbers import METRICS, NONE, duration, interval, number, run_name, size


def tiles(report: dict[str, Any]) -> str:
    """Returns the headline numbers."""
    life, speed = report["metrics"]["lifetime"], report.get("throughput", {})
    bayes = report.get("truth", {}).get("bayes_log_loss")
    loss_detail = "nats per example"
    if bayes is not None:
        loss_detail = f"truth: {bayes:.4f}"
    entries = [
        ("Log loss", number(life["log_loss"]), loss_detail),
        ("Norm. entropy", number(life["normalized_entropy"]), "base rate: 1"),
        ("AUC", number(life["auc"]), f"per query: {number(life['per_query_auc'])}"),
        ("Calibration", number(life["calibration"], ".3f"), interval(life)),
        ("Examples", f"{report['examples']:,}", f"base rate {number(life['base_rate'], '#.4g')}"),
        (
            "CPU per example",
            f"{number(report.get('cpu_us_per_example'), '.1f')} µs",
            f"{number(speed.get('examples_per_second'), ',.0f')} examples/s",
        ),
        (
            "Peak memory",
            size(report.get("peak_memory_bytes")),
            f"{duration(speed.get('wall_s'))} in all",
        ),
    ]
    cells = "\n".join(
        f'<div class="card tile"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div><div class="detail">{escape(detail)}</div></div>'
        for name, value, detail in entries
    )
    return f'<div class="tiles">\n{cells}\n</div>'


def comparison_table(runs: Sequence[dict[str, Any]]) -> str:
    """Returns one row per run or baseline, with differences to the first."""
    first = runs[0]["metrics"]["lifetime"]
    rows = []
    for place, run in enumerate(runs):
        life = run["metrics"]["lifetime"]
        swatch = f'<span class="swatch" style="background:var(--s{place % 6 + 1})"></span>'
        cells = [f'<td class="text">{swatch}{escape(run_name(run))}</td>']
        for key, _, form, more_is_better in METRICS:
            value = life.get(key)
            text = number(value, form)
            if place and value is not None and first.get(key) is not None:
                text += f" {_difference(value - first[key], form, more_is_better)}"
            cells.append(f"<td>{text}</td>")
        cells.append(f"<td>{escape(number(run.get('cpu_us_per_example'), '.1f'))}</td>")
        rows.append("".join(cells))
    heads = ["model", *(title for _, title, _, _ in METRICS), "CPU µs/example"]
    return _table(heads, rows, text_columns=1)


def _difference(delta: float, form: str, more_is_better: bool | None) -> str:
    kind = ""
    if more_is_better is not None and delta:
        kind = ' class="good"' if (delta > 0) == more_is_better else ' class="bad"'
    return f"<small{kind}>({delta:+{form}})</small>"


def span_table(report: dict[str, Any]) -> str:
    """Returns the metrics over the whole stream and over its second half."""
    spans = [("whole stream", report["metrics"]["lifetime"])]
    if report["metrics"].get("second_half"):
        spans.append(("second half", report["metrics"]["second_half"]))
    rows = [
        f'<td class="text">{name}</td><td>{values["examples"]:,}</td>'
        + "".join(f"<td>{number(values.get(key), form)}</td>" for key, _, form, _ in METRICS)
        + f"<td>{interval(values)}</td>"
        for name, values in spans
    ]
    heads = ["span", "examples", *(title for _, title, _, _ in METRICS), "calibration 95 %"]
    return _table(heads, rows, text_columns=1)


def slice_table(report: dict[str, Any]) -> str | None:
    """Returns the sortable table of all slices, or None if there are none."""
    columns = [
        ("examples", "examples", ",d"),
        ("base_rate", "base rate", "#.4g"),
        ("mean_prob", "mean pred.", "#.4g"),
        *((key, title, form) for key, title, form, _ in METRICS),
    ]
    rows = []
    for feature, values in report["metrics"].get("slices", {}).items():
        for name, found in values.items():
            cells = [
                f'<td class="text">{escape(feature)}</td>',
                f'<td class="text">{escape(name) or "(empty)"}</td>',
            ]
            for key, _, form in columns:
                value = found.get(key)
                raw = "" if value is None else f"{value:.12g}"
                cells.append(f'<td data-value="{raw}">{number(value, form)}</td>')
            low = found.get("calibration_low")
            raw = "" if low is None else f"{low:.12g}"
            cells.append(f'<td data-value="{raw}">{interval(found)}</td>')
            rows.append("".join(cells))
    if not rows:
        return None
    heads = ["feature", "value", *(title for _, title, _ in columns), "95 % interval"]
    return _table(heads, rows, text_columns=2, kind="sortable")


def bucket_table(buckets: Iterable[Mapping[str, Any]]) -> str:
    """Returns calibration by predicted probability as numbers."""
    rows = [
        f"<td>{b['mean_prob']:#.4g}</td><td>{b['rate']:#.4g}</td>"
        f"<td>{b['rate_low']:#.4g} to {b['rate_high']:#.4g}</td><td>{b['weight']:,.0f}</td>"
        for b in buckets
    ]
    return _table(["predicted", "observed", "95 %", "weight"], rows)


def fact_table(facts: Mapping[str, Any]) -> str:
    """Returns names and values; nested values are flattened to dotted names."""
    rows = [
        f'<td class="text">{escape(name)}</td><td class="text long">{escape(value)}</td>'
        for name, value in _flat(facts)
    ]
    return _table(["", ""], rows, text_columns=2, kind="facts", head=False)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{name}.")
        elif value is None:
            found.append((name, NONE))
        elif isinstance(value, bool | str):
            found.append((name, str(value)))
        elif isinstance(value, int):
            found.append((name, f"{value:,}" if abs(value) >= 10_000 else str(value)))
        elif isinstance(value, float):
            found.append((name, f"{value:,.6g}"))
        else:
            found.append((name, json.dumps(value, ensure_ascii=False)))
    return found


def _table(
    heads: Sequence[str],
    rows: Sequence[str],
    text_columns: int = 0,
    kind: str = "",
    head: bool = True,
) -> str:
    cells = "".join(
        f'<th scope="col"{" class=text" if n < text_columns else ""}>{escape(name)}</th>'
        for n, name in enumerate(heads)
    )
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    label = f' class="{kind}"' if kind else ""
    tall = " tall" if len(rows) > 25 else ""
    table = f"<table{label}>{top}<tbody>\n{body}\n</tbody></table>"
    return f'<div class="card scroll{tall}">{table}</div>'
