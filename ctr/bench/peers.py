"""The same model the usual way: 26 Keras embedding layers, Keras or TFRS training loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras
from numpy.typing import NDArray
from tensorflow_recommenders.layers.feature_interaction import Cross

from ctr.bench.stream import N_CATEGORIES, Rows

#: Rows per table: 26 of them hold about as much as one fused table of 2 ** 20.
TABLE_ROWS = 40_320


def inputs(rows: Rows) -> dict[str, NDArray[np.generic]]:
    """Returns the examples as a Keras model of this file takes them."""
    return {
        "ids": (rows.codes % TABLE_ROWS).astype(np.int32),
        "numeric": np.log1p(rows.numeric).astype(np.float32),
    }


class Tower(tf_keras.Model):
    """Embeddings, two low-rank cross layers and a 256-128-64 tower; returns probabilities."""

    def __init__(self, dim: int = 16, rank: int = 64) -> None:
        super().__init__()
        self.tables = [tf_keras.layers.Embedding(TABLE_ROWS, dim) for _ in range(N_CATEGORIES)]
        self.cross = [Cross(projection_dim=rank) for _ in range(2)]
        self.hidden = [tf_keras.layers.Dense(units, "relu") for units in (256, 128, 64)]
        self.head = tf_keras.layers.Dense(1, "sigmoid")

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32[B, 1]."""
        vectors = [table(inputs["ids"][:, i]) for i, table in enumerate(self.tables)]
        x0 = x = tf.concat([*vectors, inputs["numeric"]], axis=1)
        for layer in self.cross:
            x = layer(x0, x)
        for layer in self.hidden:
            x = layer(x)
        return self.head(x)


class Ranking(tfrs.Model):
    """The tower under ``tfrs.tasks.Ranking``."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = Tower()
        self.task = tfrs.tasks.Ranking(
            loss=tf_keras.losses.BinaryCrossentropy(), metrics=[tf_keras.metrics.AUC()]
        )

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32[B, 1]."""
        return self.tower(inputs)

    def compute_loss(self, inputs: tuple, training: bool = False) -> tf.Tensor:
        """Returns the scalar loss of a batch of (inputs, labels)."""
        x, labels = inputs
        return self.task(labels=labels, predictions=self(x))


def keras_predict_then_train(rows: Rows, batch_size: int) -> Callable[[], object]:
    """Returns a pass of ``predict_on_batch`` and ``train_on_batch``, the progressive way."""
    model = Tower()
    model.compile(_adagrad(), "binary_crossentropy", metrics=[tf_keras.metrics.AUC()])
    x, y = inputs(rows), rows.label.astype(np.float32)[:, None]

    def run() -> None:
        for at in range(0, len(y), batch_size):
            batch = {name: values[at : at + batch_size] for name, values in x.items()}
            model.predict_on_batch(batch)
            model.train_on_batch(batch, y[at : at + batch_size])

    return run


def keras_fit(rows: Rows, batch_size: int) -> Callable[[], object]:
    """Returns one epoch of ``model.fit``; its predictions are not progressive."""
    model = Tower()
    model.compile(_adagrad(), "binary_crossentropy", metrics=[tf_keras.metrics.AUC()])
    return _fit(model, rows, batch_size)


def tfrs_fit(rows: Rows, batch_size: int) -> Callable[[], object]:
    """Returns one epoch of ``fit`` with TensorFlow Recommenders' ranking task."""
    model = Ranking()
    model.compile(_adagrad())
    return _fit(model, rows, batch_size)


def _fit(model: tf_keras.Model, rows: Rows, batch_size: int) -> Callable[[], object]:
    y = rows.label.astype(np.float32)[:, None]
    data = tf.data.Dataset.from_tensor_slices((inputs(rows), y)).batch(
        batch_size, drop_remainder=True
    )
    cached = data.cache().prefetch(4)
    return lambda: model.fit(cached, epochs=1, verbose=0)


def _adagrad() -> tf_keras.optimizers.Optimizer:
    return tf_keras.optimizers.Adagrad(0.02)
