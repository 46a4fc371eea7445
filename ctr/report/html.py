"""The report as one self-contained HTML page: inline style, script and figures, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.report import plots, tables
from ctr.report.content import json_ready
from ctr.report.numbers import run_name

PAGE = "report.html"


def write_report(
    run_dir: str | Path,
    report: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]] = (),
    output: str | Path | None = None,
) -> Path:
    """Writes the page and returns its path.

    Args:
        run_dir: The run's folder; the page becomes its ``report.html``.
        report: Content of ``report.json``.
        others: Further reports, drawn over the first one's curves and tabled beside it.
        output: Another place for the page.
    """
    path = Path(run_dir) / PAGE if output is None else Path(output)
    write_atomically(path, render(json_ready(report), json_ready(list(others))).encode())
    return path


def render(report: dict[str, Any], others: Sequence[dict[str, Any]] = ()) -> str:
    """Returns the page's HTML."""
    runs = told_apart([report, *report.get("baselines", []), *others])
    title = f"{run_name(runs[0])} on {_stream(report)}"
    if others:
        title = f"{len(others) + 1} runs on {_stream(report)}"
    sections = [_header(report, title, compared=bool(others)), tables.tiles(report)]
    if len(runs) > 1:
        note = "Progressive metrics over the whole stream; in brackets the difference to the first."
        sections.append(_section("Comparison", note, tables.comparison_table(runs)))
    sections.append(_curves(report, runs))
    sections.append(_calibration(report, runs))
    table = tables.slice_table(report)
    if table:
        note = "Every example counts in one value of each feature. Click a heading to sort."
        sections.append(_section("Slices", note, table))
    sections.append(_section("Whole stream and second half", "", tables.span_table(report)))
    sections += _facts(report)
    sections.append(f"<footer>{escape(_footer(report))}</footer>")
    return Template(_part("page.html")).substitute(
        title=escape(title),
        style=_part("page.css"),
        script=_part("page.js"),
        body="\n".join(sections),
    )


def _part(name: str) -> str:
    return files("ctr.report").joinpath(name).read_text(encoding="utf-8").strip()


def told_apart(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the runs under distinct names: equal ones get their id, or a number."""
    names = [run_name(run) for run in runs]
    named, used = [], set()
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        if names.count(name) > 1:
            name = f"{name} {str(run.get('run', {}).get('id', place + 1))[:8]}"
        if name in used:
            name = f"{name} ({place + 1})"
        used.add(name)
        named.append({**run, "name": name})
    return named


def _stream(report: dict[str, Any]) -> str:
    name = report["run"].get("schema_name")
    label = report["run"].get("label")
    return f"{name or 'the stream'}{f', label {label}' if label else ''}"


def _header(report: dict[str, Any], title: str, compared: bool) -> str:
    run, windows = report["run"], report["metrics"]["windows"]
    parts = []
    if windows:
        start, end = windows[0]["start"][:16], windows[-1]["end"][:16]
        parts.append(f"{start.replace('T', ' ')} to {end.replace('T', ' ')} UTC")
    parts += [f"{key} {run[key]}" for key in ("seed", "id") if run.get(key) is not None]
    lead = "headline numbers of the first run; " if compared else ""
    note = f"{lead}every prediction was made before its example was learned from"
    late = report.get("counts", {}).get("late_labels")
    if late:
        note += f"; {late:,} labels that came after their example were learned but are not scored"
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="note">{escape(" · ".join(parts))}<br>{escape(note.capitalize())}.</p></header>'
    )


def _section(title: str, note: str, body: str) -> str:
    text = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f"<section><h2>{escape(title)}</h2>\n{text}{body}</section>"


def _card(title: str, body: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>\n{body}</div>'


def _curves(report: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    curves = plots.learning_curves(runs, report.get("truth"))
    if not curves:
        return ""
    cards = "\n".join(_card(title[0].upper() + title[1:], svg) for title, svg in curves)
    note = (
        "Each point is one window of event time. Calibration is predicted over observed clicks; "
        "its band is the 95 % interval."
    )
    return _section("Learning curves", note, f'<div class="pair">\n{cards}\n</div>')


def _calibration(report: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    cards = []
    plot = plots.calibration_plot(runs)
    if plot:
        numbers = tables.bucket_table(report.get("calibration_buckets", []))
        # Beside a long forest plot there is room for the numbers.
        n_values = sum(len(v) for v in report["metrics"].get("slices", {}).values())
        shown = " open" if n_values > 12 else ""
        details = f"<details{shown}><summary>Numbers</summary>{numbers}</details>"
        cards.append(_card("Observed rate by predicted probability", plot + details))
    forest = plots.slice_forest(report)
    if forest:
        cards.append(_card("Predicted over observed, by slice", forest))
    if not cards:
        return ""
    note = (
        "Buckets hold about equal weight; their intervals are Wilson's, at 95 %. Left of 1 a slice "
        f"is under-predicted. At most {plots.MAX_FOREST_VALUES} values per feature are drawn."
    )
    return _section("Calibration", note, f'<div class="pair">\n{"".join(cards)}\n</div>')


def _facts(report: dict[str, Any]) -> list[str]:
    run = dict(report["run"])
    config, found = run.pop("config", None), run.pop("versions", None)
    speed = {
        **report.get("throughput", {}),
        "cpu_us_per_example": report.get("cpu_us_per_example"),
        "peak_memory_bytes": report.get("peak_memory_bytes"),
    }
    sections = []
    truth = {k: v for k, v in report.get("truth", {}).items() if k != "metrics"}
    if truth:
        sections.append(_section("Against the truth", "", tables.fact_table(truth)))
    cards = [("Run", run), ("Throughput", speed), ("Counts", report.get("counts"))]
    body = "".join(
        f"<div><h3>{name}</h3>{tables.fact_table(facts)}</div>" for name, facts in cards if facts
    )
    sections.append(_section("The run", "", f'<div class="pair">{body}</div>'))
    body = "".join(
        f"<div><h3>{name}</h3>{tables.fact_table(facts)}</div>"
        for name, facts in (("Configuration", config), ("Versions", found))
        if facts
    )
    if body:
        sections.append(_section("Configuration", "", f'<div class="pair">{body}</div>'))
    return sections


def _footer(report: dict[str, Any]) -> str:
    version = report["run"].get("versions", {}).get("online-ctr", "")
    return f"online-ctr {version}. The same numbers are in report.json."
