"""A gather from a variable that is cut into ranges of rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.distribute.sharded_variable import ShardedVariable

from ctr.distributed.split import read_in_order

TABLE = np.arange(21.0, dtype=np.float32).reshape(7, 3)
IDS = np.array([6, 0, 3, 0, 5, 2], np.int32)


def eager(work: Callable) -> Callable:
    return work


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> ShardedVariable:
    monkeypatch.setattr(ShardedVariable, "sparse_read", ShardedVariable.sparse_read)
    return ShardedVariable([tf.Variable(part) for part in np.array_split(TABLE, 3)])


@pytest.mark.parametrize("how", [eager, tf.function])
@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_rows_come_in_the_order_of_the_ids(
    cut: ShardedVariable, how: Callable, shape: tuple[int, ...]
) -> None:
    read_in_order()
    ids = IDS.reshape(shape)
    found = how(lambda ids: tf.gather(cut, ids))(tf.constant(ids))
    np.testing.assert_array_equal(found, TABLE[ids])


def test_an_update_moves_the_rows_that_are_looked_up(cut: ShardedVariable) -> None:
    read_in_order()

    @tf.function
    def step(ids: tf.Tensor) -> tf.Tensor:
        cut.scatter_add(tf.IndexedSlices(tf.ones([6, 3]), ids))
        return tf.gather(cut, ids)

    after = TABLE.copy()
    np.add.at(after, IDS, 1.0)
    np.testing.assert_array_equal(step(tf.constant(IDS)), after[IDS])


def test_tensorflow_does_not_do_it_by_itself(cut: ShardedVariable) -> None:
    # When this fails, read_in_order has done its work and can go.
    found = tf.function(lambda ids: tf.gather(cut, ids))(tf.constant(IDS))
    assert not np.array_equal(found, TABLE[IDS])
