"""``octr status``: where a run that follows a stream stands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "show lag, rate, last checkpoint, last export and alarms of a run that follows a stream"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder of octr train --follow")
    parser.add_argument("--json", action="store_true", help="print the status as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the status.

    Returns:
        0, or 1 if an alarm is on.
    """
    from ctr.training.status import read_status, status_lines

    state = read_status(args.run_dir)
    print(json.dumps(state, indent=1) if args.json else "\n".join(status_lines(state)))
    return int(bool(state.get("alarms")))
