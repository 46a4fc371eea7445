"""``octr bench quality``: how well recipes predict a data folder, over several seeds."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.bench.record import add_data_argument, add_output_argument, write_record
from ctr.option_types import names, positive_int

if TYPE_CHECKING:
    from ctr.bench.scoring import Rows

HELP = "progressive quality, calibration and cost of recipes on ingested data, over seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_data_argument(parser)
    parser.add_argument(
        "--recipes",
        type=names,
        default=("lr", "wide_dcn"),
        metavar="A,B",
        help="recipes to train (default: lr,wide_dcn)",
    )
    parser.add_argument(
        "--seeds",
        type=positive_int,
        default=5,
        metavar="N",
        help="train each recipe with the seeds 0 to N - 1 (default: 5)",
    )
    parser.add_argument(
        "--slice",
        action="append",
        default=[],
        metavar="FEATURE",
        dest="slices",
        help="also show calibration by this feature; repeatable",
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Trains every recipe with every seed, one after another, and prints Markdown tables.

    Raises:
        CtrError: the options or the data cannot be used, or a training failed.
    """
    from ctr.bench.quality_tables import quality_tables
    from ctr.bench.scoring import read_rows
    from ctr.errors import ConfigError

    if not args.recipes:
        raise ConfigError("--recipes names no recipe. Pass, for example, --recipes lr,wide_dcn.")
    rows = read_rows(args.data, args.slices)
    trainings = [
        train_once(args.data, rows, recipe, seed)
        for recipe in args.recipes
        for seed in range(args.seeds)
    ]
    print(quality_tables(trainings))
    write_record(args.output, data=args.data, trainings=trainings)
    return 0


def train_once(data_dir: Path, rows: Rows, recipe: str, seed: int) -> dict[str, Any]:
    """Trains in a process of its own, so that one training's memory and CPU are its own.

    Args:
        data_dir: Folder written by ``octr ingest``.
        rows: Its rows.
        recipe: Name of the recipe.
        seed: Of the training.

    Returns:
        ``recipe``, ``seed``, ``cpu_us_per_example`` (learning alone), ``cpu_s`` and ``wall_s``
        (the whole process), ``peak_memory_bytes``, and what :func:`ctr.bench.scoring.score` says.

    Raises:
        CtrError: the training failed.
    """
    from ctr.bench.child import run_child
    from ctr.bench.scoring import read_predictions, score
    from ctr.report.content import load_report

    with tempfile.TemporaryDirectory(prefix="octr-quality-") as folder:
        run_dir = Path(folder) / "run"
        program = "import sys; from ctr.cli import main; sys.exit(main())"
        usage = run_child(
            [sys.executable, "-c", program, "train", "--data", str(data_dir), "--recipe", recipe,
             "--seed", str(seed), "--run", str(run_dir), "--save-predictions"]
        )  # fmt: skip
        report = load_report(run_dir)
        scores = score(rows, read_predictions(run_dir / "predictions.parquet", rows))
    log_loss, auc = scores["all"]["log_loss"], scores["all"]["auc"]
    print(
        f"{recipe}, seed {seed}: log loss {log_loss:.4f}, AUC {auc or 0:.4f}, "
        f"{usage.cpu_s:.1f} CPU s",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    return {
        "recipe": recipe,
        "seed": seed,
        "cpu_us_per_example": report["cpu_us_per_example"],
        "cpu_s": usage.cpu_s,
        "wall_s": usage.wall_s,
        "peak_memory_bytes": report["peak_memory_bytes"],
        **scores,
    }
