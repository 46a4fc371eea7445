"""The experiment's report as one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ctr.data.manifest import write_atomically
from ctr.harness import plots
from ctr.harness.changes import NOTE as CHANGES_NOTE
from ctr.harness.changes import change_rows
from ctr.harness.experiment import BASE, PRIMARY
from ctr.harness.table import COSTS, METRICS, cost_cell, half_width, metric_cell, pd_cell

PAGE = "report.html"
_NOTE = (
    "The base's values, and each arm's difference to it on the same examples with the same seeds; "
    "± is half the width of the wider of two 95 % intervals, one over time (moving-block "
    "bootstrap) and one over seeds (Student). A verdict needs both to exclude zero, after Holm's "
    "correction over the arms. PD is the relative prediction difference between seeds; costs of "
    "arms are ratios."
)


def write_page(output: Path, report: Mapping[str, Any], page: Path | None = None) -> Path:
    """Writes the page of a replay and returns its path.

    Args:
        output: The replay's folder; the page becomes its ``report.html``.
        report: Content of ``report.json``.
        page: Another place for the page.
    """
    path = page or output / PAGE
    write_atomically(path, render(report).encode())
    return path


def render(report: Mapping[str, Any]) -> str:
    """Returns the page's HTML."""
    stream = report["stream"]
    scored = stream["examples"] - stream["burn_in"]
    facts = (
        f"{len(report['arms'])} arms on {stream['schema']}, {scored:,} examples scored after a "
        f"burn-in of {stream['burn_in']:,} · decided by {report['primary'].replace('_', ' ')} · "
        f"{report['date'][:10]}"
    )
    sections = [
        f"<header><h1>{escape(report['name'])}</h1>"
        f'<p class="note">{escape(report["description"])}<br>{escape(facts)}</p></header>'
    ]
    if report["failed"]:
        lines = [f"{f['arm']}, seed {f['seed']}: {f['reason']}" for f in report["failed"]]
        sections.append(_section("Failed", "These units are missing below.", _lines(lines)))
    for label in report["labels"]:
        name = f"Arms, label {label}" if len(report["labels"]) > 1 else "Arms"
        sections.append(_section(name, _NOTE, _table(report, label)))
        rows = change_rows(report, label)
        if rows:
            sections.append(_section("Changes in percent", CHANGES_NOTE, _cells(rows)))
        sections.append(_figures(report, label))
    if report["left_out"]:
        lines = [f"{arm}: {reason}" for arm, reason in report["left_out"].items()]
        sections.append(_section("Left out", "Not for this stream.", _lines(lines)))
    if report["tuned"]:
        sections.append(_section("Tuned", "", _lines(_tuned(report["tuned"]))))
    sections.append(_section("Seeds", "Difference on the primary metric, by seed.", _seeds(report)))
    page = json.dumps(report["experiment"], indent=1, ensure_ascii=False)
    sections.append(
        _section("Experiment", "", f'<div class="card"><pre>{escape(page)}</pre></div>')
    )
    version = report["versions"].get("online-ctr", "")
    sections.append(
        f"<footer>online-ctr {escape(version)}. The same numbers are in report.json.</footer>"
    )
    return Template(_part("page.html")).substitute(
        title=escape(report["name"]),
        style=_part("page.css"),
        script=_part("page.js"),
        body="\n".join(sections),
    )


def _part(name: str) -> str:
    return files("ctr.report").joinpath(name).read_text(encoding="utf-8").strip()


def _section(title: str, note: str, body: str) -> str:
    text = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f"<section><h2>{escape(title)}</h2>\n{text}{body}</section>"


def _lines(lines: Sequence[str]) -> str:
    return f'<div class="card"><pre>{escape(chr(10).join(lines))}</pre></div>'


def _tuned(tuned: Mapping[str, Any]) -> list[str]:
    return [
        f"{arm}: {json.dumps(found['choice'])} out of {len(found['trials'])} trials"
        for arm, found in tuned.items()
    ]


def _table(report: Mapping[str, Any], label: str) -> str:
    primary = report["primary"]
    heads = ["arm", *(title for _, title, _ in METRICS), "PD", *(title for _, title in COSTS)]
    heads += ["parameters", "memory", "verdict"]
    rows = []
    for arm in report["arms"]:
        metrics = arm["labels"][label]["metrics"]
        cells = [metric_cell(metrics[key], digits) for key, _, digits in METRICS]
        cells.append(pd_cell(arm["prediction_difference"]))
        cells += [cost_cell(arm["costs"][key]) for key, _ in COSTS]
        cells.append(_count(arm["costs"]["parameters"]))
        cells.append(_memory(arm["costs"]["peak_memory_bytes"]))
        verdict = metrics[primary].get("verdict", "")
        kind = {"better": "good", "worse": "bad"}.get(verdict, "")
        row = f'<td class="text">{escape(arm["name"])}</td>'
        row += "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr>{row}<td class="text {kind}">{escape(verdict)}</td></tr>')
    head = "".join(
        f'<th scope="col"{" class=text" if n in (0, len(heads) - 1) else ""}>{escape(name)}</th>'
        for n, name in enumerate(heads)
    )
    body = "\n".join(rows)
    return (
        f'<div class="card scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cells(rows: Sequence[Sequence[str]]) -> str:
    heads = [f'<th scope="col"{" class=text" if not n else ""}>{escape(h)}</th>'
             for n, h in enumerate(rows[0])]  # fmt: skip
    lines = []
    for name, *cells in rows[1:]:
        row = f'<td class="text">{escape(name)}</td>'
        for cell in cells:
            kind = {"better": " class=good", "worse": " class=bad"}.get(cell.split(" ")[-1], "")
            row += f"<td{kind}>{escape(cell)}</td>"
        lines.append(f"<tr>{row}</tr>")
    return (
        f'<div class="card scroll"><table><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )


def _count(entry: Mapping[str, Any]) -> str:
    return cost_cell(entry) if "ratio" in entry else f"{entry['value']:,.0f}"


def _memory(entry: Mapping[str, Any]) -> str:
    return cost_cell(entry) if "ratio" in entry else f"{entry['value'] / 2**20:,.0f} MiB"


def _figures(report: Mapping[str, Any], label: str) -> str:
    arms = [arm for arm in report["arms"] if arm["name"] != BASE]
    cards = []
    shown = dict.fromkeys([report["primary"], "log_loss", "auc", "per_query_auc"])
    for key in [*shown, "slice_calibration_error"]:
        rows = [
            (arm["name"], entry, half_width(entry))
            for arm in arms
            if (entry := arm["labels"][label]["metrics"][key]).get("difference") is not None
        ]
        if not rows:
            continue
        title = key.replace("_", " ")
        better = "more" if PRIMARY.get(key, False) else "less"
        svg = plots.forest(rows, f"{label}-{key}", f"difference in {title}")
        cards.append(_card(f"Difference in {title} ({better} is better)", svg))
    for key in ("log_loss", "auc"):
        svg_over_time = plots.differences_over_time(arms, label, key)
        if svg_over_time:
            title = key.replace("_", " ")
            cards.append(_card(f"Difference in {title} over event time", svg_over_time))
    return f'<div class="pair">\n{"".join(cards)}\n</div>'


def _card(title: str, body: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>\n{body}</div>'


def _seeds(report: Mapping[str, Any]) -> str:
    key = report["primary"]
    lines = []
    for arm in report["arms"]:
        entry = arm["labels"][report["labels"][0]]["metrics"][key]
        found = entry.get("differences", entry["values"])
        numbers = "  ".join("-" if v is None else f"{v:+.6f}" for v in found)
        p = "" if "adjusted_p" not in entry else f"   adjusted p {entry['adjusted_p']:.3g}"
        lines.append(f"{arm['name']}: {numbers}{p}")
    return _lines(lines)
