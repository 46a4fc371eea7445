"""Imports TensorFlow without its start-up chatter, for commands that people watch."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def start_quietly(threads: int = 0) -> None:
    """Sets up this program's log lines and starts TensorFlow, silent unless that fails.

    Args:
        threads: Bound on the threads inside one operation; 0 leaves TensorFlow's default.
    """
    logging.basicConfig(level=logging.WARNING, format="octr: %(message)s", stream=sys.stderr)
    for name in ("ctr", "streaming", "serving"):
        logging.getLogger(name).setLevel(logging.INFO)
    with silent_unless_it_fails():
        import tensorflow as tf

        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.list_logical_devices()
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def silent_unless_it_fails() -> Iterator[None]:
    """Keeps what is written to the standard error to itself, and tells it if the body fails.

    Native libraries write to file descriptor 2 before any logging option is read, so it is the
    descriptor itself that is set aside.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
