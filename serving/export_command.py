"""``octr export``: a trained run as a SavedModel."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "export a run as a SavedModel that takes raw columns and predicts as the learner does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder written by octr train")
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="MODELS",
        dest="models_dir",
        help="folder of versions; the model becomes MODELS/<Unix seconds>",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="data to compare predictions on (default: what RUN was trained on)",
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="FEATURE=VALUE",
        help="a presentation feature's value in the reference treatment of predict_with_quality; "
        "one for each such feature (default: the most frequent combination in the data)",
    )
    parser.add_argument(
        "--lite",
        action="store_true",
        help="also write lite/model.tflite, the model after hashing, for LiteRT",
    )


def run(args: argparse.Namespace) -> int:
    """Exports, then prints where to, how equal the predictions are and what the model takes.

    Returns:
        0.

    Raises:
        CtrError: the run, the data or the folder cannot be used, or predictions differ.
    """
    from ctr.quiet import start_quietly

    start_quietly()
    from serving.export import export_model
    from serving.predictor import read_manifest

    path = export_model(args.run_dir, args.models_dir, args.data, args.reference, args.lite)
    manifest = read_manifest(path)
    named = ("run", "examples", "parity", "reference_treatment", "signatures")
    shown = {name: manifest[name] for name in named}
    print(json.dumps({"model": str(path), **shown}, indent=1))
    return 0
