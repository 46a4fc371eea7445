"""``octr report``: draw a run's report again, or compare several runs on one page."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ctr.errors import ConfigError

HELP = "Render RUN/report.html from RUN/report.json; several runs give one comparison page."
COMPARISON = "comparison.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("run_dirs", nargs="+", metavar="RUN", help="run folder or its report.json")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the page; default RUN/report.html, or {COMPARISON} in the first of several runs",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints a table of the metrics.

    Returns:
        0.

    Raises:
        CtrError: a report is missing or damaged.
    """
    from ctr.report import load_report, write_report
    from ctr.report.terminal import metrics_table

    if any(_is_replay(path) for path in args.run_dirs):
        return _replay(args)
    reports = [load_report(path) for path in args.run_dirs]
    first = Path(args.run_dirs[0])
    folder = first if first.is_dir() else first.parent
    output = args.output
    if output is None and len(reports) > 1:
        output = folder / COMPARISON
    page = write_report(folder, reports[0], reports[1:], output)
    print(metrics_table(reports))
    print(f"report: {page}", file=sys.stderr)
    return 0


def _is_replay(path: str) -> bool:
    from ctr.report.content import REPORT

    file = Path(path)
    file = file / REPORT if file.is_dir() else file
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("kind") == "replay"
    except (OSError, ValueError, AttributeError):
        return False


def _replay(args: argparse.Namespace) -> int:
    from ctr.harness.changes import text_changes
    from ctr.harness.page import write_page
    from ctr.harness.result import read_report
    from ctr.harness.table import text_table

    if len(args.run_dirs) > 1:
        raise ConfigError(
            "one of these is the report of octr replay, which is drawn alone. Arms are compared "
            "inside one experiment; runs of octr train can be compared with each other."
        )
    path = Path(args.run_dirs[0])
    folder = path if path.is_dir() else path.parent
    report = read_report(folder if path.is_dir() else path)
    page = write_page(folder, report, args.output)
    print(text_table(report))
    print(text_changes(report))
    print(f"report: {page}", file=sys.stderr)
    return 0
