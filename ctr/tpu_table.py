"""The fused table as TPU embedding tables, in shapes and slots that a TPU takes as they are.

``Learner(recipe, schema, table=TpuTable)`` trains the same recipe on it. Ids come as one dense
``int32[B, S]`` of static shape and a lookup is one gather in the compiled program, which is what
``TPUEmbedding`` does without a TPU. ``feature_config`` describes the same tables to one that has
its rows in the memory of many chips.

Deviations: TPU embedding hardware sums the gradients of an id that a batch holds several times
before AdaGrad squares them; this table, like the ordinary one, squares every occurrence.
Reduces to: the ordinary table, bit by bit, on the same device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ctr.api import RowOptimizer, Rows, RowState
from ctr.errors import ConfigError
from ctr.optimizers import AdaGrad
from ctr.table import Table

TpuFeatures = Mapping[str, tf.tpu.experimental.embedding.FeatureConfig]


class TpuTable(Table):
    """A :class:`~ctr.table.Table` whose variables belong to ``TPUEmbedding`` objects.

    Attributes:
        tpu: One per kind of columns; columns of width 0 (the embeddings of a linear model) have
            none.

    Raises:
        ConfigError: a row optimizer is not AdaGrad, the only one whose slots mean the same there.
    """

    tpu: dict[str, tf.tpu.experimental.embedding.TPUEmbedding]

    def lookup(self, ids: tf.Tensor) -> Rows:
        """Returns the rows of ``ids`` int32[B, S]."""
        found = super().lookup(ids)
        for name, made in self.tpu.items():
            rows = tf.tpu.experimental.embedding.serving_embedding_lookup(
                {name: ids}, None, made.embedding_tables, self._features[name]
            )
            found = found._replace(**rows)
        return found

    def _columns(
        self, name: str, start: tf.Tensor, optimizer: RowOptimizer, n_inputs: int
    ) -> tuple[tf.Variable, RowState]:
        if not hasattr(self, "tpu"):
            self.tpu, self._features = {}, {}
        if not start.shape[1]:
            return super()._columns(name, start, optimizer, n_inputs)
        config = _table_config(name, start.shape, optimizer, n_inputs, lambda *_, **__: start)
        features = {name: tf.tpu.experimental.embedding.FeatureConfig(config, name=name)}
        made = tf.tpu.experimental.embedding.TPUEmbedding(features, config.optimizer)
        made.build()
        weights = made.embedding_tables[config]
        state: Any = optimizer.build(weights, n_inputs)
        # There is no public name for slots.
        state.accumulator = made._variables[name]["accumulators"]
        self.tpu[name], self._features[name] = made, features
        return weights, state


def feature_config(
    table: Table,
    batch_size: int,
    n_slots: int,
    optimizers: Mapping[str, RowOptimizer],
    n_inputs: int,
) -> TpuFeatures:
    """Describes a table to ``TPUEmbedding``.

    Args:
        table: Its rows are the vocabulary; its present values are the initial ones.
        batch_size: Examples per step and replica, B.
        n_slots: Id slots per example, S.
        optimizers: Row optimizers, by ``embedding`` and ``wide``.
        n_inputs: Features of an example, which ``split_rate`` divides by.

    Returns:
        One feature per kind of columns, fed with dense ids int32[B, S].

    Raises:
        ConfigError: a row optimizer is not AdaGrad.
    """
    found = {}
    for name in Rows._fields:
        start = getattr(table, name)
        if start.shape[1]:
            config = _table_config(
                name, start.shape, optimizers[name], n_inputs, lambda *_, v=start, **__: v
            )
            found[name] = tf.tpu.experimental.embedding.FeatureConfig(
                config, output_shape=[batch_size, n_slots], name=name
            )
    return found


def _table_config(
    name: str, shape: tf.TensorShape, optimizer: RowOptimizer, n_inputs: int, start: Any
) -> tf.tpu.experimental.embedding.TableConfig:
    if not isinstance(optimizer, AdaGrad):
        raise ConfigError(
            f"the {name} columns of a TPU table need the row optimizer AdaGrad, received "
            f"{type(optimizer).__name__}. Set it in the recipe, or use the ordinary table."
        )
    rate = optimizer.rate / n_inputs**0.5 if optimizer.split_rate else optimizer.rate
    adagrad = tf.tpu.experimental.embedding.Adagrad(rate, optimizer.initial_accumulator)
    return tf.tpu.experimental.embedding.TableConfig(
        vocabulary_size=shape[0], dim=shape[1], initializer=start, optimizer=adagrad, name=name
    )
