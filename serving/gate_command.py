"""``octr gate``: may this version serve?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "judge an exported model on recent data and against the one now serving"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a version, or a folder whose newest is judged"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="recent labelled examples, from octr ingest"
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="MODEL",
        help="the version now serving (default: the newest other blessed one beside MODEL)",
    )
    parser.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="TOML page of bounds (default: built in)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the verdict; the reasons of a refusal go to stderr as well.

    Returns:
        0 if the version is blessed, 1 if it is refused.

    Raises:
        CtrError: the model, the data, the thresholds or the baseline cannot be used.
    """
    from ctr.quiet import start_quietly

    start_quietly()
    from serving.blessing import BLESSED, NOT_BLESSED
    from serving.gating.gate import gate
    from serving.gating.thresholds import load_thresholds

    verdict = gate(args.model, args.data, load_thresholds(args.thresholds), args.baseline)
    word = BLESSED if verdict.passed else NOT_BLESSED
    print(
        json.dumps(
            {
                "model": str(verdict.version),
                "verdict": word,
                "baseline": str(verdict.baseline) if verdict.baseline else None,
                "reasons": list(verdict.reasons),
                "measured": {check.name[4:]: check.value for check in verdict.checks},
            },
            indent=1,
        )
    )
    for reason in verdict.reasons:
        print(f"octr: refused: {reason}", file=sys.stderr)
    return 0 if verdict.passed else 1
