"""The floor: the matrix products of a forward and backward pass, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import tensorflow as tf


def layer_shapes(
    width: int, cross_layers: int, cross_rank: int, hidden: Sequence[int], n_tasks: int = 1
) -> list[tuple[int, int]]:
    """Returns (inputs, outputs) of every matrix of a low-rank cross network with a tower."""
    cross = [(width, cross_rank), (cross_rank, width)] * cross_layers
    units = [width, *hidden, n_tasks]
    return cross + list(pairwise(units))


def flops_per_example(shapes: Sequence[tuple[int, int]]) -> int:
    """Returns floating point operations forward and backward: three products per matrix."""
    return sum(3 * 2 * a * b for a, b in shapes)


def gemm_only(
    shapes: Sequence[tuple[int, int]], n_batches: int, batch_size: int, compiled: bool
) -> Callable[[], object]:
    """Returns a call that does all products of K batches in one loop in the graph.

    Args:
        shapes: From :func:`layer_shapes`; each layer reads what the one before wrote.
        n_batches: K.
        batch_size: B.
        compiled: True uses XLA's products, False TensorFlow's own (oneDNN).
    """
    rng = np.random.default_rng(0)

    def random(*shape: int) -> tf.Tensor:
        return tf.constant(rng.normal(0.0, shape[-2] ** -0.5, shape).astype(np.float32))

    weights = [tf.Variable(random(a, b)) for a, b in shapes]
    inputs = random(n_batches, batch_size, shapes[0][0])
    errors = random(n_batches, batch_size, shapes[-1][1])

    def products(inputs: tf.Tensor, errors: tf.Tensor) -> list[tf.Tensor]:
        # The gradients are loop variables, so that no compiler may drop a product.
        gradients = [tf.zeros(shape) for shape in shapes]
        first = tf.zeros([batch_size, shapes[0][0]])
        for i in tf.range(n_batches):
            x, seen = inputs[i], []
            for weight in weights:
                seen.append(x)
                x = tf.matmul(x, weight)
            # The forward result must be used too; adding it to the error costs [B, T] only.
            error = errors[i] + x
            new = []
            for x, weight in zip(reversed(seen), reversed(weights), strict=True):
                new.append(tf.matmul(x, error, transpose_a=True))
                error = tf.matmul(error, weight, transpose_b=True)
            gradients, first = new[::-1], error
        return [*gradients, first]

    function = tf.function(products, jit_compile=compiled, autograph=True)
    return lambda: [part.numpy() for part in function(inputs, errors)[-1:]]
