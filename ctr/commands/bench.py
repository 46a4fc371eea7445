"""``octr bench``: measures a part of the system and checks it against its targets."""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points

from ctr.errors import ConfigError
from ctr.verbs import explain_import

HELP = "measure a part of the system in CPU time, against its targets"
GROUP = "ctr.benchmarks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one sub-command per registered benchmark."""
    targets = parser.add_subparsers(dest="target", metavar="TARGET", required=True)
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        try:
            module = point.load()
        except Exception as error:  # a third party's module may fail in any way
            reason = explain_import(error)
            child = targets.add_parser(point.name, help=f"unavailable: {reason}")
            child.set_defaults(bench=None, reason=reason)
            continue
        child = targets.add_parser(point.name, help=module.HELP, description=module.HELP)
        module.add_arguments(child)
        child.set_defaults(bench=module.run)


def run(args: argparse.Namespace) -> int:
    """Runs a benchmark.

    Returns:
        0 if its targets are met, otherwise 1.
    """
    if args.bench is None:
        raise ConfigError(f"octr bench {args.target} is unavailable: {args.reason}.")
    return args.bench(args)
