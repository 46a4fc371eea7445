"""A run on a local cluster with a worker killed and back, and how near its curve is to others.

As a script (a process has one TensorFlow runtime, which joins a cluster for good):
``cluster_harness.py DATA RUN RECIPE KILL_AT WAIT_AT SETTING...``. The worker is killed at KILL_AT
examples, while the other one goes on; at WAIT_AT it waits until the killed one takes part again.
The last line is JSON: whether it came back, and from then on the CPU seconds of each worker and
the CPU time of all processes per example.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ctr.distributed.local import LocalCluster

TIMEOUT_S = 300.0
#: A recipe that compiles quickly, with launches of 256 examples.
TINY = ["table_rows=4096", "batch_size=32", "model.dim=4", "model.hidden=[16]"]


@dataclass(frozen=True)
class Curves:
    """Log loss per stretch of the stream, predictions made before learning.

    Attributes:
        cluster: float64[W].
        single: float64[n, W], one line per seed of the single process.
        cpu_us: Of the single process per example, reading not counted.
    """

    cluster: np.ndarray
    single: np.ndarray
    cpu_us: float

    @property
    def noise(self) -> float:
        """Standard deviation between the seeds, pooled over all stretches but the first."""
        return float(np.sqrt(self.single[:, 1:].var(axis=0, ddof=1).mean()))

    @property
    def distance(self) -> float:
        """Root mean square distance of the cluster from the mean of the seeds, likewise."""
        apart = self.cluster - self.single.mean(axis=0)
        return float(np.sqrt((apart[1:] ** 2).mean()))

    @property
    def bias(self) -> float:
        """Mean distance, with its sign, likewise."""
        return float((self.cluster - self.single.mean(axis=0))[1:].mean())


def on_a_cluster(
    data: Path, run: Path, recipe: str, kill_at: int, wait_at: int, settings: list[str]
) -> dict[str, Any]:
    """Runs this file as a script and returns what it tells."""
    command = [sys.executable, __file__, str(data), str(run), recipe, str(kill_at), str(wait_at)]
    # One that is ended here takes its cluster with it.
    done = subprocess.run(
        [*command, *settings], capture_output=True, text=True, check=False, timeout=2 * TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def curves(
    data: Path, run: Path, recipe: str, seeds: int, settings: list[str], stretches: int
) -> Curves:
    """Cuts the predictions of a run and those of single processes into equal stretches."""
    from ctr.config import override
    from ctr.data import manifest
    from ctr.data.reader import ShardReader
    from ctr.learner import Learner
    from ctr.recipe import named_recipe

    schema, shards = manifest.load(data)
    learner = Learner(override(named_recipe(recipe), settings), schema, 0, n_batches=8)
    reader = ShardReader(data, schema, shards, learner.encoder, learner.labels)
    chunks = list(reader.chunks(learner.chunk_shape))
    table = pq.read_table(run / "predictions.parquet")
    labels = table["label"].to_numpy()

    def curve(probs: np.ndarray) -> np.ndarray:
        p = np.clip(np.asarray(probs, np.float64), 1e-12, 1 - 1e-12)
        losses = np.where(labels > 0, -np.log(p), -np.log1p(-p))
        return np.array([part.mean() for part in np.array_split(losses, stretches)])

    single, spent = [], 0.0
    learner.learn(chunks[0].chunk(learner.chunk_shape))  # compiles
    for seed in range(seeds):
        fresh = Learner(learner.recipe, schema, seed, n_batches=8)
        for mine, start in zip(learner.variables, fresh.variables, strict=True):
            mine.assign(start)
        before = time.process_time()
        probs = [c.rows(learner.learn(c.chunk(learner.chunk_shape)))[:, 0] for c in chunks]
        spent += time.process_time() - before
        single.append(curve(np.concatenate(probs)))
    return Curves(
        curve(table["prob"].to_numpy()), np.array(single), spent / seeds / len(labels) * 1e6
    )


class Recovery(logging.Handler):
    """Hears the coordinator say that a worker is back."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "task:1 has been recovered" in record.getMessage():
            self.seen.set()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    data, run, recipe, kill_at, wait_at, *settings = sys.argv[1:]
    recovery = Recovery()
    logger = logging.getLogger("tensorflow")
    with LocalCluster(2, 2) as cluster:
        # Not above: every task of the cluster imports this file.
        from ctr.config import override
        from ctr.distributed.trainer import ClusterTrainer
        from ctr.recipe import named_recipe
        from ctr.training import RunConfig
        from ctr.training.trainer import Status

        logger.setLevel(logging.INFO)
        logger.handlers = [recovery]
        told = {"back": False, "cpu_s": [0.0, 0.0], "cpu_us": 0.0, "restarted": False}
        due = {"kill": int(kill_at), "wait": int(wait_at)}

        def spent(role: str) -> list[float]:
            return [cpu_s(cluster.pid(role, i)) for i in range(2)]

        def everyone() -> float:
            return time.process_time() + sum(spent("worker")) + sum(spent("ps"))

        def watch(status: Status) -> None:
            if status.examples >= due.get("kill", sys.maxsize):
                del due["kill"]
                told["killed"] = cluster.pid("worker", 1)
                os.kill(told["killed"], 9)
            if status.examples >= due.get("wait", sys.maxsize):
                del due["wait"]
                told["back"] = recovery.seen.wait(TIMEOUT_S)
                told["restarted"] = cluster.pid("worker", 1) != told["killed"]
                told["cpu_s"], told["cpu_us"] = spent("worker"), everyone()
                told["at"] = status.examples

        config = RunConfig(recipe, override(named_recipe(recipe), settings))
        trainer = ClusterTrainer(
            Path(data), Path(run), config, cluster.addresses, save_predictions=True
        )
        trainer.train(watch)
        told["cpu_s"] = [b - a for a, b in zip(told["cpu_s"], spent("worker"), strict=True)]
        told["learned"] = trainer.position
        told["cpu_us"] = (everyone() - told["cpu_us"]) / (trainer.position - told.pop("at")) * 1e6
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
