"""``octr explain``: what predictions rest on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ctr.option_types import non_negative_int, positive_int

HELP = "say which groups of features the predictions of an exported model rest on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a version, or a folder whose newest is taken"
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder from octr ingest; its newest rows are taken",
    )
    parser.add_argument(
        "--rows", type=positive_int, default=1000, metavar="N", help="rows (default: 1000)"
    )
    parser.add_argument(
        "--show", type=non_negative_int, default=3, metavar="N", help="rows told one by one (3)"
    )
    parser.add_argument(
        "--group", action="append", default=[], metavar="NAME=F,F", dest="groups",
        help="features left out together; repeatable (default: each by itself)",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the credits (.svg, .png, .pdf)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the credits of each group over all rows, and of the newest rows one by one.

    Returns:
        0.

    Raises:
        CtrError: the model, the data or a group cannot be used.
    """
    from ctr.quiet import start_quietly

    start_quietly()
    from ctr.errors import ConfigError
    from serving.explain import explain, parse_groups, plot
    from serving.gating.gate import read_recent
    from serving.predictor import Predictor

    predictor = Predictor.load(args.model)
    groups = parse_groups(predictor.encoder.schema, args.groups)
    found = explain(predictor, read_recent(args.data, args.rows).rows, groups)
    if args.plot:
        try:
            plot(found, args.plot)
        except ValueError as error:
            raise ConfigError(f"--plot {args.plot}: {error}.") from None
    mean = sorted(zip(found.mean_absolute, found.groups, strict=True), reverse=True)
    n = len(found.logits)
    report = {
        "model": str(predictor.folder),
        "explained": "quality_logit" if found.quality else "logit",
        "rows": n,
        "mean_absolute_credit": {name: float(value) for value, name in mean},
        "newest": [found.row(number) for number in range(n - min(args.show, n), n)],
    }
    print(json.dumps(report, indent=1))
    return 0
