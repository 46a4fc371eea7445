"""``octr score``: probabilities for files of rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "add an exported model's probabilities to Parquet files, on any Beam runner"
TAKES_RUNNER_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a version, or a folder whose newest is taken"
    )
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="PATH", help="Parquet files or folders of them"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")


def run(args: argparse.Namespace) -> int:
    """Scores, then prints what was done.

    Returns:
        0.

    Raises:
        CtrError: the model, the input or the output cannot be used.
    """
    from ctr.quiet import start_quietly
    from streaming.ingest_command import quiet_imports

    start_quietly()
    with quiet_imports():
        from streaming.score import score

    print(json.dumps(score(args.model, args.input, args.output, args.runner_options), indent=1))
    return 0
