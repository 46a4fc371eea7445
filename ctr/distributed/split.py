"""Rows that lie on several servers, found by a plain gather."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.distribute.sharded_variable import ShardedVariable


def read_in_order() -> None:
    """Makes ``tf.gather`` from a variable that is cut into ranges of rows give rows in order.

    TensorFlow's own reads the ranges one after the other and returns their rows in that order,
    whatever the order of the indices, and takes indices of one dimension only. Every optimizer
    and module that gathers from the table depends on this.
    """
    ShardedVariable.sparse_read = _sparse_read


def _sparse_read(
    variable: ShardedVariable, indices: tf.Tensor, name: str | None = None
) -> tf.Tensor:
    """Returns the rows of int[...] indices, each read by the server that holds it."""
    return tf.nn.embedding_lookup(list(variable.variables), indices, name=name)
