"""``octr simulate``: raw logs of a simulated ad world with known true probabilities."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from ctr.option_types import non_negative_int, positive_int

HELP = "write raw logs of a simulated ad world with known true click probabilities"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "--impressions", type=positive_int, required=True, metavar="N", help="how many"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, required=True, metavar="S", help="0 or more"
    )
    parser.add_argument("--output", required=True, metavar="EVENTS", help="folder to make")
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings of the world")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, as in shift_logit=0.5 or labels.click.rate=0.05; repeatable",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the logs, progress to stderr and a summary to stdout."""
    from ctr.simulator.raw_logs import write_events
    from ctr.simulator.settings import load_world

    config = load_world(args.config, args.set)
    start = last = time.monotonic()

    def progress(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > 1.0:
            last = time.monotonic()
            rate = done / (last - start)
            print(f"simulated {done:,} impressions, {rate:,.0f}/s", file=sys.stderr)

    summary = write_events(args.output, args.impressions, args.seed, config, progress)
    seconds = time.monotonic() - start
    rate = args.impressions / seconds
    print(f"simulated in {seconds:.1f} s ({rate:,.0f} impressions/s)", file=sys.stderr)
    print(_table(summary))
    out = args.output
    print(f"\nnext: octr ingest --schema {out}/schema.toml --input {out} --output DATA")
    return 0


def _table(summary: dict[str, Any]) -> str:
    """Returns the labels and logs as aligned text."""
    head = ("positives", "late", "rate", "base loss", "Bayes loss")
    lines = ["{:<12} {:>10} {:>7} {:>8} {:>10} {:>10}".format("label", *head)]
    for name, label in summary["labels"].items():
        lines.append(
            f"{name:<12} {label['positives']:>10,} {label['late_events']:>7,} "
            f"{label['base_rate']:>8.4f} {label['base_log_loss']:>10.4f} "
            f"{label['bayes_log_loss']:>10.4f}"
        )
    lines += ["", f"{'log':<12} {'events':>10} {'repeats':>8} {'malformed':>10} {'disorder':>9}"]
    for name, log in summary["logs"].items():
        lines.append(
            f"{name:<12} {log['unique']:>10,} {log['duplicates']:>8,} {log['malformed']:>10,} "
            f"{log['out_of_order']:>9,}"
        )
    return "\n".join(lines)
