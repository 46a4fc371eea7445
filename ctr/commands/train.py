"""``octr train``: one pass over ingested data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.errors import ConfigError
from ctr.option_types import names, non_negative_float, non_negative_int, positive_int

if TYPE_CHECKING:
    from ctr.recipe import Recipe

#: Length of a metric window of a run that follows a stream, unless one is given.
_FOLLOW_WINDOW_S = 3600.0
HELP = "learn from ingested data in one pass; run it again to resume"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``octr train``."""
    parser.add_argument("--data", type=Path, required=True, help="folder written by octr ingest")
    parser.add_argument(
        "--run", type=Path, required=True, help="run folder, new or to resume", dest="run_dir"
    )
    parser.add_argument("--recipe", default="wide_dcn", help="lr, wide_dcn (default), dlrm or mlp")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="decides every initial value"
    )
    parser.add_argument(
        "--labels",
        type=names,
        default=(),
        metavar="A,B",
        help="labels to learn together; default: the schema's first",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="examples that share one set of weights",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        dest="settings",
        help="change a field of the recipe, e.g. model.dim=32; repeatable",
    )
    parser.add_argument(
        "--window-s",
        type=non_negative_float,
        default=0.0,
        help="metric window in seconds of event time (default: chosen from data)",
    )
    parser.add_argument(
        "--allowed-lateness-s",
        type=non_negative_float,
        default=0.0,
        help="how far event time may go back between rows (default: 0)",
    )
    parser.add_argument(
        "--warm-start",
        default="",
        metavar="CHECKPOINT",
        help="start from these weights, with new metrics",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=positive_int,
        metavar="EXAMPLES",
        help="examples between checkpoints (default: one a minute)",
    )
    parser.add_argument(
        "--keep-checkpoints",
        type=positive_int,
        default=3,
        metavar="N",
        help="checkpoints kept (default: 3)",
    )
    parser.add_argument(
        "--save-predictions", action="store_true", help="also write RUN/predictions.parquet"
    )
    follow = parser.add_argument_group("live streams")
    follow.add_argument(
        "--follow",
        action="store_true",
        help="go on learning shards as octr stream commits them, until the stream is closed",
    )
    follow.add_argument(
        "--late-labels",
        choices=("importance", "fake_negative", "plain"),
        help="how corrections are learned (default with corrections in DATA: importance)",
    )
    follow.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=10.0,
        metavar="MIN",
        help="event time between checkpoints with --follow (default: 10)",
    )
    follow.add_argument(
        "--idle-s",
        type=non_negative_float,
        default=0.0,
        metavar="S",
        help="with --follow: end after so long without a new shard (default: never)",
    )
    follow.add_argument(
        "--export-to", type=Path, metavar="MODELS", help="with --follow: export models there"
    )
    follow.add_argument(
        "--export-minutes",
        type=float,
        default=60.0,
        metavar="MIN",
        help="event time between exports (default: 60)",
    )
    follow.add_argument(
        "--health-window",
        type=positive_int,
        default=5000,
        metavar="EXAMPLES",
        help="with --follow: examples that the monitors judge at once (default: 5000)",
    )
    follow.add_argument(
        "--forget-alarms",
        action="store_true",
        help="take the stream as it is now for sound and publish again",
    )
    parser.add_argument(
        "--cluster",
        default="",
        metavar="WxS",
        help="learn on W workers and S parameter servers: 2x2 starts them here, env takes those "
        "of TF_CONFIG",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=0,
        help="threads inside one operation (default: all cores)",
    )


def run(args: argparse.Namespace) -> int:
    """Trains, then writes the report."""
    from ctr.quiet import start_quietly

    start_quietly(args.threads)
    from ctr.training.disk import explain

    try:
        report = _train(args)
    except OSError as error:
        raise explain(error, args.run_dir) from error
    lifetime = report["metrics"]["lifetime"]
    shown = ("log_loss", "normalized_entropy", "auc", "per_query_auc", "calibration")
    headline = {name: lifetime.get(name) for name in shown}
    print(json.dumps({"run": str(args.run_dir), "examples": report["examples"], **headline}))
    return 0


def _train(args: argparse.Namespace) -> dict[str, Any]:
    from ctr.config import override
    from ctr.distributed.local import open_cluster
    from ctr.health import HealthConfig
    from ctr.recipe import named_recipe
    from ctr.training import RunConfig, Trainer, train_and_report
    from ctr.training.follow import Following, FollowTrainer, wait_for_data
    from ctr.training.publish import Publisher

    settings = list(args.settings)
    if args.batch_size is not None:
        settings.append(f"batch_size={args.batch_size}")
    health = HealthConfig(window=args.health_window)
    following = Following(args.checkpoint_minutes, args.idle_s, health=health)
    if args.follow and args.cluster:
        raise ConfigError(
            "--follow and --cluster exclude each other: a live stream is learned by one process. "
            "Leave one of them out."
        )
    if args.follow:
        wait_for_data(args.data, following)
    elif args.export_to:
        raise ConfigError("--export-to needs --follow; use octr export for a finished run.")
    config = RunConfig(
        recipe_name=args.recipe,
        recipe=_with_late_labels(override(named_recipe(args.recipe), settings), args),
        seed=args.seed,
        labels=args.labels,
        # Of a stream without an end no window length can be chosen from its span.
        window_s=args.window_s or (_FOLLOW_WINDOW_S if args.follow else 0.0),
        by_shard=args.follow,
        # Part of the run's identity, so one checkpoint must have one name.
        warm_start=str(Path(args.warm_start).resolve()) if args.warm_start else "",
    )
    if args.follow:
        publisher = None
        if args.export_to:
            publisher = Publisher(args.run_dir, args.export_to, args.export_minutes)
        return train_and_report(
            FollowTrainer(
                args.data,
                args.run_dir,
                config,
                following,
                args.keep_checkpoints,
                args.save_predictions,
                publisher,
                args.forget_alarms,
            )
        )
    how = {
        "checkpoint_every": args.checkpoint_every or 0,
        "keep": args.keep_checkpoints,
        "save_predictions": args.save_predictions,
        "allowed_lateness_s": args.allowed_lateness_s,
    }
    if args.cluster:
        from ctr.distributed.trainer import ClusterTrainer

        with open_cluster(args.cluster) as addresses:
            return train_and_report(
                ClusterTrainer(args.data, args.run_dir, config, addresses, **how)
            )
    return train_and_report(Trainer(args.data, args.run_dir, config, **how))


def _with_late_labels(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """Adds how corrections are learned, if the data hold any or if it was asked for."""
    from ctr.data import manifest
    from ctr.techniques.late_labels import LateLabels

    method = args.late_labels
    if method is None and manifest.load(args.data)[0].has("correction"):
        method = "importance"
    return recipe if method is None else LateLabels(method).apply(recipe)
