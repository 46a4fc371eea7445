"""Launches of one shape are compiled once, whatever they hold; and the count would tell."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ctr.compilations import counted_compilations


@tf.function(jit_compile=True)
def bounded_by_a_range(n: tf.Tensor) -> tf.Tensor:
    total = tf.zeros([])
    for _ in tf.range(n):
        total += 1.0
    return total


@tf.function(jit_compile=True)
def bounded_by_a_condition(n: tf.Tensor) -> tf.Tensor:
    total, i = tf.zeros([]), tf.zeros([], tf.int32)
    while i < n:
        total += 1.0
        i += 1
    return total


def count(step: tf.types.experimental.PolymorphicFunction) -> int:
    with counted_compilations() as compiled:
        for n in (1, 2, 3, 2):
            assert step(tf.constant(n)).numpy() == np.float32(n)
    assert step.experimental_get_tracing_count() == 1
    return compiled.count


def test_a_bound_that_must_be_known_is_compiled_for_each_value() -> None:
    assert count(bounded_by_a_range) == 3


def test_a_bound_in_a_condition_is_compiled_once() -> None:
    assert count(bounded_by_a_condition) == 1
