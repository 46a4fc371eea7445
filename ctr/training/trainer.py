"""One pass over the committed examples: predict, score, learn, checkpoint."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.checkpoint import CheckpointStore, Saved, read, restore
from ctr.data import manifest
from ctr.data.prefetch import prefetch
from ctr.data.reader import Examples, ShardReader
from ctr.errors import StreamError
from ctr.learner import Chunk, Learner
from ctr.metrics import ProgressiveMetrics
from ctr.training.load import saved_metrics
from ctr.training.predictions import PredictionLog
from ctr.training.run import RunConfig, RunFolder, open_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """Where a run stands, for progress displays.

    Attributes:
        examples: Examples learned so far.
        total: Examples in the data.
        time_us: Event time of the newest one.
        metrics: Progressive metrics of the primary label.
    """

    examples: int
    total: int
    time_us: int
    metrics: ProgressiveMetrics


class Trainer:
    """Trains a run to the end of its data, from the start or from its newest checkpoint.

    Whether and when it is interrupted changes nothing: chunks, and with them every float
    addition, depend on the position in the stream alone.

    Args:
        data_dir: Folder written by ``octr ingest``.
        run_dir: Run folder, new or to be resumed.
        config: What decides the numbers.
        checkpoint_every: Examples between checkpoints; 0 makes one a minute.
        keep: Checkpoints kept.
        save_predictions: Also write ``predictions.parquet``.

    Raises:
        CtrError: the data, the configuration or the checkpoint cannot be used.
    """

    def __init__(
        self,
        data_dir: Path,
        run_dir: Path,
        config: RunConfig,
        checkpoint_every: int = 0,
        keep: int = 3,
        save_predictions: bool = False,
    ) -> None:
        schema, shards = manifest.load(data_dir)
        if not shards:
            raise StreamError(f"{data_dir} holds no examples. Ingest a log that has rows.")
        self.config = config
        self.learner = Learner(config.recipe, schema, config.seed, config.labels)
        self.run: RunFolder = open_run(run_dir, config, schema, shards, data_dir)
        lateness_us = round(config.allowed_lateness_s * 1e6)
        self.reader = ShardReader(
            data_dir, schema, shards, self.learner.encoder, self.learner.labels, lateness_us
        )
        self._every, self._store = checkpoint_every, CheckpointStore(run_dir / "checkpoints", keep)
        self.metrics = {name: self._new_metrics() for name in self.learner.labels}
        self.counts: Counter[str] = Counter()
        self.position = 0
        self.time_us = 0
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self.timed_examples = 0
        self.compile_cpu_s = 0.0
        self._resume()
        self._log = (
            PredictionLog(run_dir, self.learner.labels, self.position) if save_predictions else None
        )

    def train(self, progress: Callable[[Status], None] | None = None) -> None:
        """Learns everything that is left, then saves a last checkpoint."""
        shape = self.learner.chunk_shape
        saved_at, saved_time = self.position, time.monotonic()
        cpu, wall = time.process_time(), time.monotonic()
        first = True
        for examples in prefetch(self.reader.chunks(shape, self.position)):
            self._step(examples, shape)
            spent, cpu = time.process_time() - cpu, time.process_time()
            passed, wall = time.monotonic() - wall, time.monotonic()
            if first:
                self.compile_cpu_s += spent
            else:
                self.cpu_s += spent
                self.wall_s += passed
                self.timed_examples += examples.n_rows
            first = False
            if progress is not None:
                primary = self.metrics[self.learner.labels[0]]
                progress(Status(self.position, self.reader.n_rows, self.time_us, primary))
            due = (
                self.position - saved_at >= self._every
                if self._every
                else time.monotonic() - saved_time >= 60.0
            )
            if due and examples.n_rows == shape[0] * shape[1]:
                self._save()
                saved_at, saved_time = self.position, time.monotonic()
                cpu, wall = time.process_time(), time.monotonic()
        if not self._store.paths() or self.position > saved_at:
            self._save()
        if self._log is not None:
            self._log.finish()

    def _step(self, examples: Examples, shape: tuple[int, int]) -> None:
        chunk = Chunk(*(examples.padded(name, shape) for name in Chunk._fields))
        probs = self.learner.learn(chunk)
        flat: NDArray[np.float32] = probs.reshape(-1, probs.shape[-1])[: examples.n_rows]
        at = 0
        for block in examples.blocks:
            n = len(block.time_us)
            slices = {name: block.frame.column(name) for name in self.learner.schema.slices}
            for t, name in enumerate(self.learner.labels):
                self.metrics[name].update(
                    block.time_us, flat[at : at + n, t], block.labels[:, t], block.weights,
                    block.query, slices,
                )  # fmt: skip
            at += n
        if self._log is not None:
            self._log.add(examples, flat)
        self.counts.update(examples.counts)
        self.position = examples.stop
        self.time_us = int(examples.blocks[-1].time_us[-1])

    def _new_metrics(self) -> ProgressiveMetrics:
        schema = self.learner.schema
        return ProgressiveMetrics(
            schema.slices, self.run.window_us,
            query_auc="impressions" if schema.has("query_id") else None,
        )  # fmt: skip

    def _save(self) -> None:
        if self._log is not None:
            self._log.flush()
        arrays = {
            f"{name}/{key}": value
            for name, metrics in self.metrics.items()
            for key, value in metrics.state_dict().items()
        }
        extra: dict[str, Any] = {
            "run": self.run.id,
            "schema": self.learner.schema.fingerprint(),
            "event_time_us": self.time_us,
            "counts": dict(self.counts),
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "timed_examples": self.timed_examples,
            "compile_cpu_s": self.compile_cpu_s,
        }
        self._store.save(self.learner, self.position, arrays, extra)

    def _resume(self) -> None:
        saved = self._store.latest()
        if saved is None:
            if self.config.warm_start:
                restore(self.learner, read(Path(self.config.warm_start)))
            return
        restore(self.learner, saved)
        self._load(saved)
        log.info("resuming at example %s of %s", f"{self.position:,}", f"{self.reader.n_rows:,}")

    def _load(self, saved: Saved) -> None:
        for name in self.metrics:
            self.metrics[name] = saved_metrics(saved, name)
        self.counts = Counter(saved.extra["counts"])
        self.position = saved.examples
        self.time_us = saved.extra["event_time_us"]
        self.cpu_s = saved.extra["cpu_s"]
        self.wall_s = saved.extra["wall_s"]
        self.timed_examples = saved.extra["timed_examples"]
        self.compile_cpu_s = saved.extra["compile_cpu_s"]
