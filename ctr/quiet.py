"""Imports TensorFlow without its start-up chatter, for commands that people watch."""

from __future__ import annotations

import logging
import os
import sys
import tempfile


def start_quietly(threads: int = 0) -> None:
    """Sets up this program's log lines and starts TensorFlow, silent unless that fails.

    The native libraries write to file descriptor 2 before any logging option is read, so the
    descriptor itself is set aside while they load.

    Args:
        threads: Bound on the threads inside one operation; 0 leaves TensorFlow's default.
    """
    logging.basicConfig(level=logging.WARNING, format="octr: %(message)s", stream=sys.stderr)
    for name in ("ctr", "streaming", "serving"):
        logging.getLogger(name).setLevel(logging.INFO)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow as tf

            if threads:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.list_logical_devices()
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
