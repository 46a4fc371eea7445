"""A process of a local cluster; forked from one that has imported this module and so TensorFlow."""

from __future__ import annotations

import multiprocessing
import os

from ctr.distributed.task import ClusterSpec, serve
from ctr.quiet import silent_unless_it_fails

with silent_unless_it_fails():
    import tensorflow  # noqa: F401


def serve_child(spec: ClusterSpec) -> None:
    """Serves for as long as the process lives that asked for it, however that ends."""
    with silent_unless_it_fails():
        serve(spec)
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
