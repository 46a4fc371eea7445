"""One pass over the committed examples: predict, score, learn, checkpoint."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.checkpoint import CheckpointStore, Saved, read, restore
from ctr.data import manifest
from ctr.data.examples import Examples
from ctr.data.prefetch import prefetch
from ctr.data.reader import ShardReader
from ctr.errors import CheckpointError, ConfigError, CtrError, StreamError
from ctr.learner import Learner
from ctr.metrics import ProgressiveMetrics
from ctr.schema import Schema
from ctr.training.load import saved_metrics
from ctr.training.predictions import PredictionLog
from ctr.training.run import CHECKPOINTS, RunConfig, RunFolder, open_run

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
        allowed_lateness_s: How far event time may fall back; decides what is refused, no number.

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
        allowed_lateness_s: float = 0.0,
    ) -> None:
        schema, shards = manifest.load(data_dir)
        if not sum(shard.n_rows for shard in shards):
            raise StreamError(f"{data_dir} holds no examples. Ingest a log that has rows.")
        self.config = config
        self._store = CheckpointStore(run_dir / CHECKPOINTS, keep)
        self.learner = self._checked_build(config, schema)
        lateness_us = round(allowed_lateness_s * 1e6)
        self.reader = ShardReader(
            data_dir, schema, shards, self.learner.encoder, self.learner.labels, lateness_us,
            self.learner.side, self.learner.whole_queries, config.recipe.sampler,
        )  # fmt: skip
        # Everything that can be refused is refused before the run folder is touched.
        saved = self._store.latest()
        self.reader.check(0 if saved is None else saved.examples)
        if saved is None and config.warm_start:
            self._warm_start(read(Path(config.warm_start)))
        self.run: RunFolder = open_run(run_dir, config, schema, shards, data_dir)
        self._every = checkpoint_every
        self.metrics = {name: self._new_metrics() for name in self.learner.labels}
        self.counts: Counter[str] = Counter()
        self.position = self._saved_at = 0
        self.time_us = 0
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self.timed_examples = 0
        self.compile_cpu_s = 0.0
        if saved is not None:
            self._resume(saved)
        self._log = (
            PredictionLog(run_dir, self.learner.labels, self.position) if save_predictions else None
        )

    @property
    def total(self) -> int | None:
        """Examples in the data, None where more may come."""
        return self.reader.n_rows

    @property
    def finished(self) -> bool:
        """True if every example is learned, and every prediction that was asked for is saved."""
        learned = self.position == self.reader.n_rows
        return learned and (self._log is None or self._log.finished())

    def train(self, progress: Callable[[Status], None] | None = None) -> None:
        """Learns everything that is left, saves a last checkpoint and releases the run folder."""
        try:
            self._train(progress)
        finally:
            self.run.lock.release()

    def _train(self, progress: Callable[[Status], None] | None) -> None:
        shape = self.learner.chunk_shape
        self._saved_at, saved_time = self.position, time.monotonic()
        cpu, wall = time.process_time(), time.monotonic()
        first = True
        for examples, probs in self._learned(shape):
            self._score(examples, probs)
            spent, cpu = time.process_time() - cpu, time.process_time()
            passed, wall = time.monotonic() - wall, time.monotonic()
            if first:
                self.compile_cpu_s += spent
            else:
                self.cpu_s += spent
                self.wall_s += passed
                # Rows that a sampler leaves out belong to the stream and cost next to nothing.
                self.timed_examples += examples.stop - examples.start
            first = False
            if progress is not None:
                primary = self.metrics[self.learner.labels[0]]
                progress(Status(self.position, self.reader.n_rows, self.time_us, primary))
            if self._is_due(time.monotonic() - saved_time):
                self._save()
                saved_time = time.monotonic()
                cpu, wall = time.process_time(), time.monotonic()
        if self.position > self._saved_at:
            self._save()
        if self._log is not None:
            self._log.finish()

    def _checked_build(self, config: RunConfig, schema: Schema) -> Learner:
        """Builds the learner; a value that no layer accepts is the configuration's fault."""
        twice = [name for name, n in Counter(config.labels).items() if n > 1]
        if twice:
            raise ConfigError(f"label {twice[0]!r} is named twice. Name each label once.")
        try:
            return self._build(config, schema)
        except CtrError:
            raise
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise ConfigError(
                f"recipe {config.recipe_name!r} cannot be built with these settings: {error}"
            ) from error

    def _build(self, config: RunConfig, schema: Schema) -> Learner:
        """Returns the untrained learner."""
        return Learner(config.recipe, schema, config.seed, config.labels)

    def _learned(self, shape: tuple[int, int]) -> Iterator[tuple[Examples, NDArray[np.float32]]]:
        """Yields each chunk of what is left, in order, and the predictions made before it."""
        for examples in self._chunks(shape):
            yield examples, self.learner.learn(examples.chunk(shape))

    def _chunks(self, shape: tuple[int, int]) -> Iterator[Examples]:
        """Yields what is left of the data."""
        return prefetch(self.reader.chunks(shape, self.position))

    def _is_due(self, passed_s: float) -> bool:
        """Says whether a checkpoint is due, this many seconds after the last one."""
        if self._every:
            return self.position - self._saved_at >= self._every
        return passed_s >= 60.0

    def _score(self, examples: Examples, probs: NDArray[np.float32]) -> None:
        flat: NDArray[np.float32] = examples.rows(probs)
        at = 0
        for block in examples.blocks:
            n = len(block.time_us)
            slices = {name: block.frame.column(name) for name in self.learner.schema.slices}
            labels = block.scored_labels
            for t, name in enumerate(self.learner.labels):
                self.metrics[name].update(
                    block.time_us, flat[at : at + n, t], labels[:, t], block.weights,
                    block.query, slices,
                )  # fmt: skip
            at += n
        self._watch(examples, flat)
        if self._log is not None:
            self._log.add(examples, flat)
        self.counts.update(examples.counts)
        self.position = examples.stop
        self.time_us = int(examples.blocks[-1].time_us[-1])

    def _watch(self, examples: Examples, probs: NDArray[np.float32]) -> None:
        """Looks at what was learned and its predictions float32[n, T]."""

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
        arrays |= self._more_state()
        extra: dict[str, Any] = {
            "run": self.run.id,
            "schema": self.learner.schema.fingerprint(),
            "data": self._learned_data(self.position),
            "event_time_us": self.time_us,
            "counts": dict(self.counts),
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "timed_examples": self.timed_examples,
            "compile_cpu_s": self.compile_cpu_s,
        }
        self._store.save(self.learner, self.position, arrays, extra)
        self._saved_at = self.position

    def _more_state(self) -> dict[str, NDArray[Any]]:
        """Returns what a checkpoint holds beside metrics, by names of its own."""
        return {}

    def _learned_data(self, position: int) -> str:
        """Returns a digest of the shards that begin before a position of the stream."""
        digest, before = hashlib.sha256(), 0
        for shard in self.reader.shards:
            if before < position:
                digest.update(shard.sha256.encode())
            before += shard.n_rows
        return digest.hexdigest()

    def _warm_start(self, saved: Saved) -> None:
        fingerprint = self.learner.schema.fingerprint()
        if saved.extra["schema"] != fingerprint:
            raise CheckpointError(
                f"--warm-start {saved.path} was trained with schema {saved.extra['schema']}, but "
                f"{self.reader.data_dir} has schema {fingerprint} ({self.learner.schema.name}). "
                "Use a checkpoint of the same schema, or start without."
            )
        restore(self.learner, saved)

    def _resume(self, saved: Saved) -> None:
        if saved.extra["run"] != self.run.id:
            raise CheckpointError(
                f"checkpoint {saved.path} belongs to run {saved.extra['run']}, not to "
                f"{self.run.id}. Restore the run's own, or use it with --warm-start."
            )
        if saved.extra["data"] != self._learned_data(saved.examples):
            raise CheckpointError(
                f"{self.reader.data_dir} no longer begins with the {saved.examples:,} examples "
                f"that {self.run.path} has learned. Use the data it was trained on (more may "
                "follow them), or a new --run folder."
            )
        restore(self.learner, saved)
        self._load(saved)
        if self.position < self.reader.n_rows:
            log.info(
                "resuming at example %s of %s", f"{self.position:,}", f"{self.reader.n_rows:,}"
            )

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
