"""``octr demo``: the whole main job on a simulated ad world, from raw events to a served model."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from ctr.option_types import positive_int

HELP = "simulate raw events, ingest, train, compare with the truth, report, export, gate and serve"
TAKES_RUNNER_OPTIONS = True

#: The label that the demo learns.
LABEL = "click"
_IMPRESSIONS = 600_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument(
        "--impressions",
        type=positive_int,
        metavar="N",
        help="simulated impressions (default: 600,000; with --live 120,000)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--live",
        action="store_true",
        help="play a simulated day while it is joined, learned and exported",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="with --live: how long the day takes (default: 60)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs every step; each is a verb that works the same on your own logs."""
    from ctr.quiet import start_quietly

    start_quietly()
    started = time.monotonic()
    out: Path = args.output
    _check_empty(out)
    if args.live:
        from streaming.demo_live import IMPRESSIONS, run_live

        return run_live(out, args.impressions or IMPRESSIONS, args.seed, args.seconds)
    events, data, models = out / "events", out / "data", out / "models"
    _simulate(events, args.impressions or _IMPRESSIONS, args.seed)
    _ingest(events, data, tuple(args.runner_options))
    _step(f"octr train --data {data} --recipe lr --run {out / 'lr'}")
    lr = _train(data, out / "lr", "lr", args.seed)
    _step(f"octr train --data {data} --recipe wide_dcn --save-predictions --run {out / 'run'}")
    report = _train(data, out / "run", "wide_dcn", args.seed, save_predictions=True)
    _compare(out / "run", events / "truth" / "truth.parquet", report, lr)
    _serve(out / "run", data, models)
    print(f"\nreport: {out / 'run' / 'report.html'}")
    print(f"done in {time.monotonic() - started:.0f} s")
    return 0


def _check_empty(out: Path) -> None:
    from ctr.errors import ConfigError

    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty. Remove it, or pass another --output.")


def _step(command: str) -> None:
    print(f"\n$ {command}", file=sys.stderr, flush=True)


def _simulate(events: Path, n_impressions: int, seed: int) -> None:
    from ctr.simulator.raw_logs import write_events
    from ctr.simulator.settings import load_world

    _step(f"octr simulate --impressions {n_impressions} --seed {seed} --output {events}")
    write_events(str(events), n_impressions, seed, load_world(None, []), lambda done: None)


def _ingest(events: Path, data: Path, runner_options: tuple[str, ...]) -> None:
    from streaming.ingest import IngestOptions, ingest
    from streaming.source import load_source

    _step(f"octr ingest --schema {events}/schema.toml --input {events} --output {data}")
    schema, source = load_source(events / "schema.toml")
    options = IngestOptions(runner_options=runner_options)
    for line in ingest(schema, source, [str(events)], data, options).lines():
        print(f"  {line}")


def _train(
    data: Path, run_dir: Path, recipe: str, seed: int, save_predictions: bool = False
) -> dict[str, Any]:
    from ctr.recipe import named_recipe
    from ctr.training import RunConfig, Trainer, train_and_report

    config = RunConfig(recipe, named_recipe(recipe), seed, (LABEL,))
    return train_and_report(Trainer(data, run_dir, config, save_predictions=save_predictions))


def _compare(run_dir: Path, truth: Path, report: dict[str, Any], lr: dict[str, Any]) -> None:
    """Adds the baselines and the truth to the run's report and prints the comparison."""
    from ctr.report.content import save_report
    from ctr.report.html import write_report
    from streaming.demo_truth import running_mean_section, truth_section

    window_us = report["metrics"]["window_us"]
    report["truth"] = truth_section(run_dir, truth, LABEL, window_us)
    mean = running_mean_section(run_dir, window_us)
    report["baselines"] = [{"name": "lr", "metrics": lr["metrics"]}, mean]
    save_report(run_dir, report)
    write_report(run_dir, report)
    true = report["truth"]
    rows = [
        ("running mean", mean["metrics"]["lifetime"]),
        ("lr", lr["metrics"]["lifetime"]),
        ("wide_dcn", report["metrics"]["lifetime"]),
        ("(the truth)", true["metrics"]["lifetime"]),
    ]
    print(f"\n{'':<14}{'log loss':>10}{'AUC':>9}{'calibration':>13}")
    for name, values in rows:
        auc = values["auc"]
        print(f"{name:<14}{values['log_loss']:>10.4f}{auc:>9.4f}{values['calibration']:>13.3f}")
    regret, error = true["regret_second_half"], true["mean_absolute_error_second_half"]
    ratio = true["predicted_over_true_second_half"]
    print(f"\nwide_dcn, second half: {regret:.4f} nats above the best possible log loss,")
    print(f"  predicted / true clicks {ratio:.3f}, mean |predicted - true| {error:.4f}")


def _serve(run_dir: Path, data: Path, models: Path) -> None:
    """Exports the run, has it judged, serves it and compares an answer with the learner's."""
    from ctr.training.load import load_run
    from serving.export import export_model
    from streaming.demo_serving import judge, serve_and_ask

    _step(f"octr export {run_dir} --to {models}")
    print(f"\nexported to {export_model(run_dir, models)}")
    _step(f"octr gate {models} --data {data}")
    judge(models, data)
    _step(f"octr serve {models}")
    learner = load_run(run_dir).learner
    row = _last_row(data)
    encoded = learner.encoder.encode(row)
    expected = float(learner.predict(encoded.ids, encoded.numeric)[0, 0])
    serve_and_ask(models, models.name, row, expected)


def _last_row(data: Path) -> Any:
    """Returns the newest example as a RecordBatch of one row."""
    import pyarrow.parquet as pq

    from ctr.data import manifest

    _, shards = manifest.load(data)
    table = pq.read_table(data / shards[-1].file)
    return table.slice(table.num_rows - 1).combine_chunks().to_batches()[0]
