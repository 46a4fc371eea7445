"""Trains a run on a cluster: a chief reads and scores, workers learn, servers hold the state."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.api import HostWork
from ctr.data.examples import Examples
from ctr.distributed.split import read_in_order
from ctr.distributed.task import SERVER, WORKER
from ctr.errors import ConfigError, CtrError
from ctr.learner import Learner
from ctr.schema import Schema
from ctr.training.run import RunConfig
from ctr.training.trainer import Trainer

#: Launches that a worker has in hand or in its queue; more would only make weights older.
_PER_WORKER = 2
#: Examples and batches per launch: enough to hide the cost of a call. What is being learned, no
#: other worker knows yet, so more would cost quality.
_EXAMPLES, _BATCHES = 1024, 8


class ClusterTrainer(Trainer):
    """A trainer whose launches run on workers, on variables that lie on parameter servers.

    Recipe, learner, run folder, metrics and checkpoints are those of :class:`Trainer`. What
    differs: workers learn different launches at the same time, each on weights that lack what the
    others are just learning, so two runs never give the same bits. A launch whose worker died
    is run again by another one; the batches it had finished are then learned twice.

    Args:
        data_dir: Folder written by ``octr ingest``; only the chief reads it.
        run_dir: Run folder, new or to be resumed. Servers write checkpoints there themselves, so
            on several machines it must be one shared folder.
        config: What to learn.
        addresses: ``host:port`` of every task, by role.
        options: Further arguments of :class:`Trainer`.

    Raises:
        CtrError: as of :class:`Trainer`.
        ConfigError: the recipe has a part that works beside the graph.
    """

    def __init__(
        self,
        data_dir: Path,
        run_dir: Path,
        config: RunConfig,
        addresses: Mapping[str, Sequence[str]],
        **options: Any,
    ) -> None:
        tasks = {role: list(addresses[role]) for role in (WORKER, SERVER)}
        self._n_workers, self._n_servers = len(tasks[WORKER]), len(tasks[SERVER])
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(tasks), rpc_layer="grpc"
        )
        self._table_rows = config.recipe.table_rows
        self._strategy = tf.distribute.experimental.ParameterServerStrategy(
            resolver, variable_partitioner=self._partitions
        )
        self._coordinator = tf.distribute.experimental.coordinator.ClusterCoordinator(
            self._strategy
        )
        self._waiting: deque[tuple[Examples, Any]] = deque()
        self._draining = False
        super().__init__(data_dir, run_dir, config, **options)

    def train(self, progress: Any = None) -> None:
        """Learns everything that is left, saves a last checkpoint and releases the run folder.

        Raises:
            CtrError: a parameter server is gone.
        """
        try:
            super().train(progress)
        except tf.errors.UnavailableError:
            raise CtrError(
                "a parameter server does not answer, so its variables are lost. Run the same "
                "command with all servers up: it goes on from the newest checkpoint."
            ) from None

    def _build(self, config: RunConfig, schema: Schema) -> Learner:
        read_in_order()
        n_batches = max(1, min(_BATCHES, _EXAMPLES // config.recipe.batch_size))
        with self._strategy.scope():
            learner = Learner(
                config.recipe, schema, config.seed, config.labels, n_batches, compiled=False
            )
        refuse_host_work(learner)
        return learner

    def _partitions(self, shape: tf.TensorShape, dtype: tf.DType, **_: Any) -> list[int]:
        """Spreads the rows of the table and of its slots; everything else stays whole."""
        del dtype
        whole = [1] * len(shape)
        if len(shape) == 2 and shape[0] == self._table_rows:
            return [self._n_servers, 1]
        return whole

    def _learned(self, shape: tuple[int, int]) -> Iterator[tuple[Examples, NDArray[np.float32]]]:
        for examples in self._chunks(shape):
            while self._waiting and (self._draining or self._is_full()):
                yield self._next()
            self._draining = False
            arguments = self.learner.arguments(examples.chunk(shape))
            result = self._coordinator.schedule(self.learner.launch, arguments)
            self._waiting.append((examples, result))
        while self._waiting:
            yield self._next()

    def _is_full(self) -> bool:
        return len(self._waiting) >= _PER_WORKER * self._n_workers

    def _next(self) -> tuple[Examples, NDArray[np.float32]]:
        """Returns the oldest launch that was handed out, and waits for it."""
        examples, result = self._waiting.popleft()
        return examples, result.fetch()

    def _is_due(self, passed_s: float) -> bool:
        # A checkpoint's position must cover all that was learned, so nothing may be under way.
        self._draining = self._draining or super()._is_due(passed_s)
        return self._draining and not self._waiting


def refuse_host_work(learner: Learner) -> None:
    """Checks that all of a learner's work is in its launches.

    Raises:
        ConfigError: a part works beside the graph.
    """
    beside = sorted({type(m).__name__ for m in learner.submodules if isinstance(m, HostWork)})
    if beside:
        raise ConfigError(
            f"the recipe has parts that work beside the graph ({', '.join(beside)}), which must "
            "happen between launches; on a cluster there is no such moment. Train it without "
            "--cluster."
        )
