"""The process that trains: its threads and its memory."""

from __future__ import annotations

import resource


def peak_memory_bytes() -> int:
    """Returns the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def set_threads(intra_op: int) -> None:
    """Bounds the threads inside one operation; 0 leaves the default. Call before any other op."""
    import tensorflow as tf

    if intra_op:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)
