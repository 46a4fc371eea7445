"""The online learner: predict a batch, then learn from it, many batches per compiled launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ctr.api import Batch, Forward
from ctr.compiler import materialized
from ctr.encoding import Encoder
from ctr.errors import ConfigError, nearest
from ctr.inputs import Standardizer, features
from ctr.recipe import Recipe
from ctr.schema import Schema
from ctr.table import Table
from ctr.update import Trace

#: Examples per compiled launch: enough to hide the cost of a call (measured: 4,096).
LAUNCH_EXAMPLES = 4096


class Chunk(NamedTuple):
    """``K`` batches in one set of arrays, the unit that is fed to a launch.

    Attributes:
        ids: int32[K, B, S].
        numeric: float32[K, B, M]; NaN means missing.
        labels: float32[K, B, T] in {0, 1}; -1 means unknown.
        weights: float32[K, B]; 0 marks padding.
    """

    ids: np.ndarray
    numeric: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class Learner(tf.Module):
    """A recipe bound to a schema, with all of its state.

    Everything that training changes is a variable of this module, so one checkpoint covers it.

    Args:
        recipe: What to learn with.
        schema: What the examples look like.
        seed: Decides every initial value.
        labels: Names of the labels to learn; the schema's first one by default.

    Raises:
        ConfigError: the schema has no label of a given name.
    """

    def __init__(
        self, recipe: Recipe, schema: Schema, seed: int = 0, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(name="learner")
        known = [label.name for label in schema.labels]
        for name in labels:
            if name not in known:
                raise ConfigError(f"schema {schema.name!r} has no label {name!r}: "
                                  f"{nearest(name, known)}")
        self.recipe, self.schema, self.seed = recipe, schema, seed
        self.labels = tuple(labels) or (known[0],)
        self.encoder = Encoder(schema, recipe.table_rows)
        layout = self.encoder.layout
        self._transforms = list(recipe.features)
        for transform in self._transforms:
            layout = transform.extend(layout)
        self.layout = layout
        n_tasks = len(self.labels)
        n_inputs = layout.n_features + len(layout.numeric)
        self.model = recipe.model.build(layout, n_tasks, seed)
        self.table = Table(
            recipe.table_rows, self.model.dim, n_tasks, recipe.optimizer.embedding,
            recipe.optimizer.linear, n_inputs, recipe.init_scale, seed,
        )  # fmt: skip
        self.standardizer = Standardizer(layout)
        self.calibrator = recipe.calibrator.build(layout, schema.slices, n_tasks)
        self._probes = list(recipe.probes)
        self._forward(*self._blank(1), training=False)  # creates lazily built variables
        self.update = recipe.update.build(self.model, self.table, recipe.optimizer)
        self.n_batches = max(1, LAUNCH_EXAMPLES // recipe.batch_size)
        self._launch = tf.function(
            self._learn_chunk, input_signature=self._chunk_spec(), jit_compile=True
        )
        self._serve = tf.function(
            lambda ids, numeric: self.logits(ids, numeric),
            input_signature=[
                tf.TensorSpec([None, self.encoder.layout.n_slots], tf.int32),
                tf.TensorSpec([None, len(self.encoder.layout.numeric)], tf.float32),
            ],
        )

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Batches per launch and examples per batch, (K, B)."""
        return self.n_batches, self.recipe.batch_size

    def learn(self, chunk: Chunk) -> np.ndarray:
        """Predicts and learns K batches in order.

        Returns:
            float32[K, B, T], calibrated probabilities, each made before its batch was learned.
        """
        return self._launch(*(tf.constant(part) for part in chunk)).numpy()

    def predict(self, ids: np.ndarray, numeric: np.ndarray) -> np.ndarray:
        """Returns calibrated probabilities float32[N, T] for ids int32[N, S] and raw numerics."""
        return tf.sigmoid(self._serve(tf.constant(ids), tf.constant(numeric))).numpy()

    def logits(self, ids: tf.Tensor, numeric: tf.Tensor) -> tf.Tensor:
        """Returns calibrated logits float32[B, T], in the graph; this is what is exported."""
        ids, _, forward, _ = self._forward(ids, numeric, training=False)
        return self.calibrator(forward.logits, ids)

    def n_parameters(self) -> dict[str, int]:
        """Number of learned values in the table and in dense variables."""
        dense = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)
        tables = (self.table.embedding, self.table.wide)
        return {"table": sum(int(np.prod(t.shape)) for t in tables), "dense": dense}

    def _blank(self, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        layout = self.encoder.layout
        return tf.zeros([size, layout.n_slots], tf.int32), tf.zeros([size, len(layout.numeric)])

    def _chunk_spec(self) -> list[tf.TensorSpec]:
        k, b = self.chunk_shape
        layout = self.encoder.layout
        return [
            tf.TensorSpec([k, b, layout.n_slots], tf.int32),
            tf.TensorSpec([k, b, len(layout.numeric)], tf.float32),
            tf.TensorSpec([k, b, len(self.labels)], tf.float32),
            tf.TensorSpec([k, b], tf.float32),
        ]

    def _forward(
        self, ids: tf.Tensor, numeric: tf.Tensor, training: bool, tape: tf.GradientTape | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, Forward, object]:
        for transform in self._transforms:
            ids, numeric = transform(ids, numeric)
        if tape is None:
            rows = self.table.lookup(ids)
        else:
            with tape.stop_recording():
                rows = materialized(self.table.lookup(ids))
            tape.watch(rows)
        seen = features(self.layout, ids, rows, self.standardizer(numeric))
        return ids, numeric, self.model(seen, training), seen

    def _learn_batch(self, batch: Batch) -> tf.Tensor:
        trained = self.recipe.sampler(batch)
        with tf.GradientTape() as tape:
            ids, numeric, forward, seen = self._forward(batch.ids, batch.numeric, True, tape)
            trained = trained._replace(ids=ids, numeric=numeric)
            # The loss is taken on what is served, so model and calibrator follow one residual
            # and cannot both correct the same error.
            calibrated = forward._replace(logits=self.calibrator(forward.logits, ids))
            losses = self.recipe.loss(calibrated, trained) * trained.weights
        probs = tf.sigmoid(calibrated.logits)
        for probe in self._probes:
            probe.observe(forward, trained)
        # The prediction must be read before any assignment below, which automatic control
        # dependencies guarantee: they keep reads and writes of a variable in program order.
        self.update(Trace(tape, trained, seen, calibrated, losses))
        self.calibrator.learn(forward.logits, trained)
        self.standardizer.observe(numeric, batch.weights)
        return probs

    def _learn_chunk(
        self, ids: tf.Tensor, numeric: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        k, b = self.chunk_shape
        out = tf.TensorArray(tf.float32, size=k, element_shape=[b, len(self.labels)])
        for i in tf.range(k):
            batch = Batch(ids[i], numeric[i], labels[i], weights[i], {})
            out = out.write(i, self._learn_batch(batch))
        return out.stack()
