"""``octr doctor``: does this installation work, and if not, what to do."""

from __future__ import annotations

import argparse
import dataclasses
import json

HELP = "Check versions, Keras mode, threads, paths, XLA and Beam, and say how to fix each."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints one line per check.

    Returns:
        0 if nothing failed (warnings allowed), otherwise 1.
    """
    from ctr.doctor import run_checks

    checks = run_checks()
    failed = sum(check.status == "fail" for check in checks)
    if args.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=1))
        return 1 if failed else 0
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<5} {check.name:<{width}}  {check.detail}")
        if check.fix:
            print(f"{'':<5} {'':<{width}}  fix: {check.fix}")
    warned = sum(check.status == "warn" for check in checks)
    print(f"{len(checks)} checks: {failed} failed, {warned} with a warning")
    return 1 if failed else 0
