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

    path = export_model(args.run_dir, args.models_dir, args.data)
    manifest = read_manifest(path)
    shown = {name: manifest[name] for name in ("run", "examples", "parity", "signatures")}
    print(json.dumps({"model": str(path), **shown}, indent=1))
    return 0
