"""The online learner: predict a batch, then learn from it, many batches per compiled launch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctr.admission import Admission, wants_admission
from ctr.api import Batch, Features, Forward, HostWork, Rows, StatefulTransform
from ctr.data.examples import Chunk
from ctr.data.side import check_side, side_dtype
from ctr.encoding import Encoder
from ctr.errors import ConfigError, nearest
from ctr.inputs import Standardizer, features
from ctr.losses import build_loss
from ctr.recipe import Recipe, parts, side_columns
from ctr.schema import Schema
from ctr.table import Table
from ctr.update import Trace

#: Examples per compiled launch: enough to hide the cost of a call (at 4,096 it is still 8 %).
LAUNCH_EXAMPLES = 16_384
#: Small batches cost more each, so that fewer of them hide a call; a short stream is padded less.
LAUNCH_BATCHES = 64


class Learner(tf.Module):
    """A recipe bound to a schema, with all of its state.

    Everything that training changes is a variable of this module, so one checkpoint covers it.

    Attributes:
        launch: The traced function that predicts and learns a chunk, from ``arguments(chunk)`` to
            probabilities float32[K, B, T].

    Args:
        recipe: What to learn with.
        schema: What the examples look like.
        seed: Decides every initial value.
        labels: Names of the labels to learn; the schema's first one by default.
        n_batches: Batches per launch, K; 0 takes as many as make a launch cheap.
        compiled: False runs a launch op by op, where variables lie in other processes.
        table: What holds the rows.

    Raises:
        ConfigError: the schema has no label of a given name.
    """

    def __init__(
        self,
        recipe: Recipe,
        schema: Schema,
        seed: int = 0,
        labels: Sequence[str] = (),
        n_batches: int = 0,
        compiled: bool = True,
        table: type[Table] = Table,
    ) -> None:
        super().__init__(name="learner")
        known = [label.name for label in schema.labels]
        for name in labels:
            if name not in known:
                raise ConfigError(
                    f"schema {schema.name!r} has no label {name!r}: {nearest(name, known)}"
                )
        self.recipe, self.schema, self.seed = recipe, schema, seed
        self.labels = tuple(labels) or (known[0],)
        self.encoder = Encoder(schema, recipe.table_rows)
        layout = self.encoder.layout
        before = []
        for transform in recipe.features:
            before.append(layout)
            layout = transform.extend(layout)
        self.layout = layout
        n_tasks = len(self.labels)
        n_inputs = layout.n_features + len(layout.numeric)
        self.model = recipe.model.build(layout, n_tasks, seed)
        n_wide = getattr(self.model, "n_wide", n_tasks)
        self.table = table(
            recipe.table_rows, self.model.dim, n_wide, recipe.optimizer.embedding,
            recipe.optimizer.linear, n_inputs, recipe.init_scale, seed,
        )  # fmt: skip
        self.transforms = [
            part.build(known, recipe.table_rows, self.model.dim, seed)
            if isinstance(part, StatefulTransform)
            else part
            for part, known in zip(recipe.features, before, strict=True)
        ]
        self._learning = [t for t in self.transforms if isinstance(t, tf.Module)]
        self.standardizer = Standardizer(layout)
        self.admission = Admission(self.encoder) if wants_admission(self.encoder) else None
        self.calibrator = recipe.calibrator.build(layout, schema.slices, n_tasks)
        self._loss, self.loss_states = build_loss(recipe.loss, layout, n_tasks)
        self._probes = list(recipe.probes)
        self.side = side_columns(recipe, ("event_time",) if self.admission else ())
        self.whole_queries = any(getattr(part, "whole_queries", False) for part in parts(recipe))
        check_side([*self.side, *(["query"] if self.whole_queries else [])], schema)
        self.examples = tf.Variable(tf.zeros([], tf.int64), name="examples")
        self._forward(*self._blank(1), training=False)  # creates lazily built variables
        self.update = recipe.update.build(self.model, self.table, recipe.optimizer)
        self._host_work = [m for m in self.submodules if isinstance(m, HostWork)]
        self.n_batches = n_batches or max(
            1, min(LAUNCH_BATCHES, LAUNCH_EXAMPLES // recipe.batch_size)
        )
        self.launch = tf.function(
            self._learn_chunk, input_signature=self._chunk_spec(), jit_compile=compiled
        )
        self._single = tf.function(self._learn_plain, jit_compile=True)
        self._serve = tf.function(
            lambda ids, numeric: self.logits(ids, numeric), input_signature=self.input_signature
        )

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Batches per launch and examples per batch, (K, B)."""
        return self.n_batches, self.recipe.batch_size

    @property
    def input_signature(self) -> list[tf.TensorSpec]:
        """Encoded inputs of any number of examples: ids int32[N, S] and numeric float32[N, M]."""
        layout = self.encoder.layout
        return [
            tf.TensorSpec([None, layout.n_slots], tf.int32),
            tf.TensorSpec([None, len(layout.numeric)], tf.float32),
        ]

    @property
    def n_traces(self) -> int:
        """How often the step was traced; more than once would mean a compilation per batch."""
        return self.launch.experimental_get_tracing_count()

    def learn(self, chunk: Chunk) -> np.ndarray:
        """Predicts and learns K batches in order.

        Returns:
            float32[K, B, T], calibrated probabilities, each made before its batch was learned.
        """
        probs = self.launch(*self.arguments(chunk)).numpy()
        self.between_launches()
        return probs

    def arguments(self, chunk: Chunk) -> tuple[Any, ...]:
        """Returns what ``launch`` takes, for who calls it elsewhere."""
        side = {name: tf.constant(chunk.side[name]) for name in self.side}
        return (*(tf.constant(part) for part in chunk[:4]), side)

    def between_launches(self) -> None:
        """Does the parts' work beside the graph; ``learn`` calls it by itself."""
        for state in self._host_work:
            state.between_launches()

    def learn_batch(
        self, ids: tf.Tensor, numeric: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        """Predicts and learns one batch from inside a graph, for training loops of others.

        The loop calls ``between_launches`` after each run of its graph.

        Args:
            ids: int32[N, S], N at most the recipe's batch size; a short batch is padded.
            numeric: float32[N, M].
            labels: float32[N, T].
            weights: float32[N].

        Returns:
            float32[N, T], probabilities made before the batch was learned.
        """
        size = self.recipe.batch_size
        n = tf.shape(weights)[0]

        def padded(part: tf.Tensor) -> tf.Tensor:
            tail = [[0, size - n], *([[0, 0]] * (len(part.shape) - 1))]
            return tf.ensure_shape(tf.pad(part, tail), [size, *part.shape[1:]])

        return self._single(*(padded(part) for part in (ids, numeric, labels, weights)))[:n]

    def predict(self, ids: np.ndarray, numeric: np.ndarray) -> np.ndarray:
        """Returns calibrated probabilities float32[N, T] for ids int32[N, S] and raw numerics."""
        return tf.sigmoid(self._serve(tf.constant(ids), tf.constant(numeric))).numpy()

    def logits(self, ids: tf.Tensor, numeric: tf.Tensor) -> tf.Tensor:
        """Returns calibrated logits float32[B, T], in the graph; this is what is exported."""
        return self.forward(ids, numeric).logits

    def forward(self, ids: tf.Tensor, numeric: tf.Tensor) -> Forward:
        """Returns calibrated logits float32[B, T] and the model's extras, in the graph."""
        if self.admission is not None:
            ids = self.admission(ids)
        ids, _, forward, _ = self._forward(ids, numeric, training=False)
        return forward._replace(logits=self.calibrator(forward.logits, ids))

    def n_parameters(self) -> dict[str, int]:
        """Number of learned values in the table and in dense variables."""
        return {
            "table": _size([self.table.embedding, self.table.wide]),
            "dense": _size(self.model.trainable_variables),
        }

    def table_use(self) -> dict[str, dict[str, int]]:
        """How ids use the table, by feature; empty where none declares admission or expiry."""
        return self.admission.usage() if self.admission is not None else {}

    def _blank(self, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        layout = self.encoder.layout
        return tf.zeros([size, layout.n_slots], tf.int32), tf.zeros([size, len(layout.numeric)])

    def _chunk_spec(self) -> list[Any]:
        k, b = self.chunk_shape
        layout = self.encoder.layout
        return [
            tf.TensorSpec([k, b, layout.n_slots], tf.int32),
            tf.TensorSpec([k, b, len(layout.numeric)], tf.float32),
            tf.TensorSpec([k, b, len(self.labels)], tf.float32),
            tf.TensorSpec([k, b], tf.float32),
            {name: tf.TensorSpec([k, b], side_dtype(name)) for name in self.side},
        ]

    def _forward(
        self,
        ids: tf.Tensor,
        numeric: tf.Tensor,
        training: bool,
        tape: tf.GradientTape | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, Forward, Features]:
        for transform in self.transforms:
            beside = (self.table,) if transform in self._learning else ()
            ids, numeric = transform(ids, numeric, *beside)
        rows = self.table.lookup(ids)
        if tape is not None:
            tape.watch(rows)
        scaled = self.standardizer(numeric)
        inputs = features(self.layout, ids, rows, scaled, self.examples.read_value())
        return ids, numeric, self.model(inputs, training), inputs

    def _again(self, inputs: Features, rows: Rows) -> Forward:
        inputs = features(self.layout, inputs.ids, rows, inputs.numeric, inputs.seen)
        forward = self.model(inputs, True)
        return forward._replace(logits=self.calibrator(forward.logits, inputs.ids))

    def _learn_batch(self, batch: Batch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            ids, numeric, forward, inputs = self._forward(
                self._admitted(batch), batch.numeric, True, tape
            )
            # The loss is taken on what is served, so model and calibrator follow one residual
            # and cannot both correct the same error.
            calibrated = forward._replace(logits=self.calibrator(forward.logits, ids))
            trained = self.recipe.sampler(batch, tf.stop_gradient(calibrated.logits))
            trained = trained._replace(ids=ids, numeric=numeric)
            losses = self._loss(calibrated, trained) * trained.weights
        probs = tf.sigmoid(calibrated.logits)
        for probe in self._probes:
            probe.observe(forward, trained)
        # The prediction must be read before any assignment below, which automatic control
        # dependencies guarantee: they keep reads and writes of a variable in program order.
        again = functools.partial(self._again, inputs)
        self.update(Trace(tape, trained, inputs, calibrated, losses, again))
        self.calibrator.learn(forward.logits, trained)
        for state in self.loss_states:
            state.learn(calibrated, trained)
        for transform in self._learning:
            transform.learn(trained, self.table)
        self.standardizer.observe(numeric, batch.weights)
        if self.admission is not None:
            self.admission.observe(batch.ids, batch.weights, batch.side["event_time"], self.table)
        self.examples.assign_add(tf.math.count_nonzero(batch.weights))
        return probs

    def _admitted(self, batch: Batch) -> tf.Tensor:
        if self.admission is None:
            return batch.ids
        return self.admission(batch.ids, batch.side["event_time"])

    def _learn_plain(
        self, ids: tf.Tensor, numeric: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        seen = self.examples.read_value()
        return self._learn_batch(Batch(ids, numeric, labels, weights, {}, seen))

    def _learn_chunk(
        self,
        ids: tf.Tensor,
        numeric: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor,
        side: Mapping[str, tf.Tensor],
    ) -> tf.Tensor:
        k, b = self.chunk_shape
        out = tf.TensorArray(tf.float32, size=k, element_shape=[b, len(self.labels)])
        # Batches of padding at the end of the data are left out: momentum would move weights.
        filled = tf.reduce_any(weights > 0.0, axis=1)
        n_filled = tf.reduce_max(tf.where(filled, tf.range(k) + 1, 0))
        # No tf.range: its bound would be a constant to XLA, which would compile anew for all
        # weights it has not seen yet.
        i = tf.zeros([], tf.int32)
        learn = self._learn_batch
        if tf.distribute.has_strategy():
            # Optimizers of variables that lie elsewhere ask for a replica.
            learn = functools.partial(_on_a_replica, learn)
        while i < n_filled:
            beside = {name: values[i] for name, values in side.items()}
            seen = self.examples.read_value()
            batch = Batch(ids[i], numeric[i], labels[i], weights[i], beside, seen)
            probs = learn(batch)
            out = out.write(i, probs)
            i += 1
        return out.stack()


def _on_a_replica(learn: Callable[[Batch], tf.Tensor], batch: Batch) -> tf.Tensor:
    return tf.distribute.get_strategy().run(learn, args=(batch,))


def _size(variables: Sequence[tf.Variable]) -> int:
    return sum(variable.shape.num_elements() for variable in variables)
