"""``octr report``: draw a run's report again, or compare several runs on one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
