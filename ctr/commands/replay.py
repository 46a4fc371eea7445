"""``octr replay``: arms x seeds over one stream, compared with intervals and verdicts."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from ctr.option_types import positive_int

HELP = "compare arms of an experiment over a stream, paired, with intervals and verdicts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "experiment", metavar="EXPERIMENT", help="a TOML page, or the name of a shipped experiment"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder of the report and of finished units (default: replays/NAME)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=positive_int, metavar="N", help="processes at a time (default: all cores)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", dest="settings",
        help="change a key of the page, e.g. stream.rows=100000 or arms.0.set='[...]', or remove "
        "it (stream.simulate=); repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", default=[], metavar="ARM", dest="only",
        help="run only this arm beside the base; repeatable",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the experiment, prints its table and writes ``report.json`` and ``report.html``.

    Returns:
        0, or 1 if a unit failed.
    """
    from ctr.harness.experiment import load_table, only_arms, parse
    from ctr.quiet import start_quietly

    table = load_table(args.experiment, args.settings)
    if args.only:
        table = only_arms(table, args.only)
    name = parse(table, args.experiment).name
    jobs = args.jobs or len(os.sched_getaffinity(0))
    # The console script does not look for modules where it is called.
    sys.path.append(os.getcwd())
    start_quietly()
    from ctr.data.manifest import write_atomically
    from ctr.harness.changes import CHANGES, markdown, text_changes
    from ctr.harness.page import write_page
    from ctr.harness.session import run_experiment
    from ctr.harness.table import text_table

    # So that a terminated experiment takes its units with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    output = args.output or Path("replays") / name
    output.mkdir(parents=True, exist_ok=True)
    outcome = run_experiment(table, output, jobs, args.experiment)
    if outcome.report["arms"]:
        print(text_table(outcome.report))
        print(text_changes(outcome.report))
        write_atomically(output / CHANGES, markdown(outcome.report).encode())
        print(f"report: {write_page(output, outcome.report)}", file=sys.stderr)
    if outcome.failures:
        n = len(outcome.failures)
        print(f"octr: {n} of the units failed; the same command runs them again.", file=sys.stderr)
    return 1 if outcome.failures else 0
