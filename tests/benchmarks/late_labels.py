"""Ways to learn labels that come late, on a simulated live stream, against the true probabilities.

Run as ``python tests/benchmarks/late_labels.py --rows 60000``. Each example is predicted right
before it is learned; all arms are scored on the labels that were known in the end.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctr.config import override
from ctr.data import manifest
from ctr.metrics.sums import MetricSums
from ctr.recipe import named_recipe
from ctr.simulator import LabelSpec, WorldConfig, write_events
from ctr.techniques.late_labels import LateLabels
from ctr.training.follow import Following, FollowTrainer
from ctr.training.run import RunConfig
from streaming.live.dir_source import DirSource
from streaming.live.driver import Driver, DriverOptions
from streaming.live.rules import join_rules
from streaming.source import load_source
from streaming.stage import Reading

WINDOW_S = 3600.0
CLICK = LabelSpec("click", "commerce", 0.12, 1.0, False, 600.0, 1.5, WINDOW_S)
ARMS = (
    ("wait for the window", WINDOW_S, "importance"),
    ("importance", 60.0, "importance"),
    ("importance, no wait", 0.0, "importance"),
    ("fake_negative, no wait", 0.0, "fake_negative"),
    ("plain", 60.0, "plain"),
    ("plain, no wait", 0.0, "plain"),
)


def stream(logs: Path, data: Path, wait_s: float) -> None:
    """Joins the logs with a wait."""
    schema, source = load_source(logs / "schema.toml")
    reading = Reading(schema, source, (), 1 << 22)
    rules = join_rules(schema, source, wait_s, 600.0, 1800.0)
    options = DriverOptions(until_idle_s=0.01, ahead_s=1e9)
    Driver(reading, DirSource(logs, reading), data, rules, options).run()


def predictions(data: Path, run: Path, method: str) -> dict[str, float]:
    """Learns a stream and returns the prediction of each example by its id."""
    recipe = override(named_recipe("wide_dcn"), ["table_rows=65536"])
    config = RunConfig("wide_dcn", LateLabels(method).apply(recipe), 0, ("click",), 3600.0,
                       by_shard=True)  # fmt: skip
    FollowTrainer(data, run, config, Following(1e6), save_predictions=True).train()
    table = pq.read_table(run / "predictions.parquet")
    first = table.filter(pc.is_valid(table.column("label")))
    return by_id(first, "prob")


def final_labels(data: Path) -> dict[str, int]:
    """Returns the click of each example when its window was over."""
    labels: dict[str, int] = {}
    for shard in manifest.load(data)[1]:
        table = pq.read_table(data / shard.file, columns=["example_id", "click"])
        labels |= by_id(table, "click")
    return labels


def by_id(table: pa.Table, column: str) -> dict[str, Any]:
    """Returns a column by example id."""
    return dict(zip(table["example_id"].to_pylist(), table[column].to_pylist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="impressions")
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    args = parser.parse_args()
    world = WorldConfig(days=2.0, n_users=2000, n_ads=960, n_advertisers=96, n_queries=400,
                        labels=(CLICK,), duplicate_rate=0.01, malformed_rate=0.0)  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_events(folder / "logs", args.rows, args.seed, world)
        for wait_s in dict.fromkeys(wait for _, wait, _ in ARMS):
            stream(folder / "logs", folder / f"data-{wait_s}", wait_s)
        labels = final_labels(folder / f"data-{WINDOW_S}")
        truth = pq.read_table(folder / "logs" / "truth" / "truth.parquet")
        times = by_id(truth, "event_time")
        scored = sorted(times, key=times.__getitem__)[args.rows // 4 :]
        y = np.array([labels[k] for k in scored])
        print(f"{len(scored):,} examples after the first quarter, {y.mean():.4f} positive")
        print(f"{'arm':<24} {'log loss':>9} {'calibration':>12} {'AUC':>7}")

        def show(arm: str, prob: dict[str, float]) -> None:
            sums = MetricSums.empty()
            sums.add(np.array([prob[k] for k in scored]), y)
            v = sums.values()
            print(f"{arm:<24} {v['log_loss']:>9.4f} {v['calibration']:>12.3f} {v['auc']:>7.4f}",
                  flush=True)  # fmt: skip

        show("true probabilities", by_id(truth, "p_click"))
        for k, (arm, wait_s, method) in enumerate(ARMS):
            show(arm, predictions(folder / f"data-{wait_s}", folder / f"run-{k}", method))


if __name__ == "__main__":
    main()
