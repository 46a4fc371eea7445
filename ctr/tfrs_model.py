"""A recipe as a ``tfrs.Model``, for those who live with ``fit``, ``evaluate`` and ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from ctr.data import manifest
from ctr.data.reader import ShardReader
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.recipe import Recipe
from ctr.schema import Schema

Inputs = Mapping[str, tf.Tensor]


class TfrsModel(tfrs.Model):
    """Trains a recipe through Keras, with the learner's own compiled step and optimizers.

    ``fit`` predicts each batch before learning from it, so the training metrics are progressive;
    one epoch is one pass. Batches are ``(inputs, labels)`` or ``(inputs, labels, weights)`` with
    ``inputs = {"ids": int32[B, S], "numeric": float32[B, M]}``, labels float32[B, T] (-1 is
    unknown) and weights float32[B] (0 is padding). Short batches are padded.

    Attributes:
        learner: Holds the recipe and all that is learned.
    """

    train_function: Callable[[Any], dict[str, Any]] | None

    def __init__(self, learner: Learner) -> None:
        super().__init__(name="recipe")
        self.learner = learner
        self.task = tfrs.tasks.Ranking(
            loss=tf_keras.losses.BinaryCrossentropy(),
            metrics=[
                tf_keras.metrics.AUC(name="auc"),
                tf_keras.metrics.BinaryCrossentropy(name="log_loss"),
            ],
        )

    def compile(self, **options: Any) -> None:
        """Compiles the model; there is no ``optimizer`` to give, the recipe has its own.

        Raises:
            ConfigError: an option is given that the recipe decides.
        """
        for name in ("optimizer", "loss"):
            if options.get(name) is not None:
                raise ConfigError(
                    f"compile({name}=...): the recipe brings its own. Set it in the recipe."
                )
        # The task weighs its metrics itself; saying so spares Keras' warning.
        super().compile(**{"weighted_metrics": [], **options})

    def call(self, inputs: Inputs, training: bool = False) -> tf.Tensor:
        """Returns calibrated probabilities float32[B, T]."""
        del training
        return tf.sigmoid(self.learner.logits(inputs["ids"], inputs["numeric"]))

    def compute_loss(self, inputs: tuple, training: bool = False) -> tf.Tensor:
        """Returns the mean log loss of a batch in nats and updates the ranking metrics."""
        del training
        x, labels, weights = tf_keras.utils.unpack_x_y_sample_weight(inputs)
        labels, weights = _columns(labels, weights, len(self.learner.labels))
        return self._scored(self(x), labels, weights)

    def train_step(self, inputs: tuple) -> dict[str, tf.Tensor]:
        """Predicts a batch, scores the predictions, then learns from the batch."""
        x, labels, weights = tf_keras.utils.unpack_x_y_sample_weight(inputs)
        labels, weights = _columns(labels, weights, len(self.learner.labels))
        probs = self.learner.learn_batch(x["ids"], x["numeric"], labels, weights)
        loss = self._scored(probs, labels, weights)
        return {metric.name: metric.result() for metric in self.metrics} | {"loss": loss}

    def make_train_function(self, force: bool = False) -> Callable[[Any], dict[str, Any]]:
        """Returns Keras' function that runs the step, followed by the work between launches."""
        # Keras keeps the function that it made here and asks for it at every fit.
        if self.train_function is None or force:
            run = super().make_train_function(force)

            def run_and_work(iterator: Any) -> dict[str, Any]:
                logs = run(iterator)
                self.learner.between_launches()
                return logs

            self.train_function = run_and_work
        return self.train_function

    def test_step(self, inputs: tuple) -> dict[str, tf.Tensor]:
        """Scores a batch and learns nothing."""
        loss = self.compute_loss(inputs)
        return {metric.name: metric.result() for metric in self.metrics} | {"loss": loss}

    def _scored(self, probs: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        known = tf.cast(labels >= 0.0, tf.float32) * weights[:, None]
        # One line per prediction, so that Keras weighs each label by itself.
        return self.task(
            labels=tf.reshape(tf.maximum(labels, 0.0), [-1, 1]),
            predictions=tf.reshape(probs, [-1, 1]),
            sample_weight=tf.reshape(known, [-1, 1]),
        )


def as_tfrs_model(
    recipe: Recipe, schema: Schema, seed: int = 0, labels: Sequence[str] = ()
) -> TfrsModel:
    """Returns a recipe as a compiled ``tfrs.Model``.

    Args:
        recipe: What to learn with; its batch size is that of the dataset to ``fit``.
        schema: What the examples look like.
        seed: Decides every initial value.
        labels: Names of the labels to learn; the schema's first one by default.

    Raises:
        ConfigError: the schema has no label of a given name, or the recipe needs side columns,
            which a dataset of encoded batches does not carry.
    """
    learner = Learner(recipe, schema, seed, labels)
    needs = [*learner.side, *(["whole queries"] if learner.whole_queries else [])]
    if needs:
        raise ConfigError(
            f"as_tfrs_model: recipe and schema need {', '.join(needs)} in every batch, which "
            "Keras does not pass on. Train them with `octr train`."
        )
    model = TfrsModel(learner)
    model.compile()
    return model


def as_dataset(data_dir: str | Path, learner: Learner) -> tf.data.Dataset:
    """Returns committed shards, encoded, as batches of (inputs, labels, weights), in order.

    Args:
        data_dir: Folder written by ``octr ingest``.
        learner: Decides encoder, labels and batch size, e.g. ``model.learner``.
    """
    schema, shards = manifest.load(data_dir)
    size = learner.recipe.batch_size

    @tf.autograph.experimental.do_not_convert
    def batches() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        reader = ShardReader(Path(data_dir), schema, shards, learner.encoder, learner.labels)
        for examples in reader.chunks((1, size)):
            chunk = examples.chunk((1, size))
            n = examples.n_rows
            x = {"ids": chunk.ids[0, :n], "numeric": chunk.numeric[0, :n]}
            yield x, chunk.labels[0, :n], chunk.weights[0, :n]

    ids, numeric = learner.input_signature
    signature = (
        {"ids": ids, "numeric": numeric},
        tf.TensorSpec([None, len(learner.labels)], tf.float32),
        tf.TensorSpec([None], tf.float32),
    )
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(4)


def _columns(
    labels: tf.Tensor, weights: tf.Tensor | None, n_tasks: int
) -> tuple[tf.Tensor, tf.Tensor]:
    labels = tf.reshape(tf.cast(labels, tf.float32), [-1, n_tasks])
    if weights is None:
        return labels, tf.ones_like(labels[:, 0])
    return labels, tf.reshape(tf.cast(weights, tf.float32), [-1])
