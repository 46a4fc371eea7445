"""Hints for the XLA compiler, for code that only ever runs compiled."""

from __future__ import annotations

from typing import TypeVar

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

T = TypeVar("T")


def materialized(values: T) -> T:
    """Returns ``values`` (a tensor or a nest of them), computed once and stored.

    XLA likes to fuse a row gather with the arithmetic around it, and then loads it float by
    float; kept apart, each row is one vector load and the arithmetic runs over flat memory.
    """
    flat = tf.nest.flatten(values)
    return tf.nest.pack_sequence_as(values, xla.optimization_barrier(*flat))
