"""``octr doctor``'s checks of what the learner stands on: Keras 2, XLA, equal hashes."""

from __future__ import annotations

import os
from collections.abc import Callable

from ctr.doctor import Check

REINSTALL = "pip install --require-hashes -r requirements.lock (or make a new venv)."


def check_keras() -> Check:
    """TensorFlow Recommenders is built on Keras 2, so ``tf.keras`` has to be ``tf_keras``."""
    import tensorflow as tf

    flag = os.environ.get("TF_USE_LEGACY_KERAS", "unset")
    home = tf.keras.layers.Dense.__module__.partition(".")[0]
    detail = f"tf.keras is {home}, TF_USE_LEGACY_KERAS={flag}"
    if home == "tf_keras":
        return Check("keras", "ok", detail)
    return Check("keras", "fail", detail, "export TF_USE_LEGACY_KERAS=1, or unset it (1 is ours).")


def check_recommenders() -> Check:
    """A TensorFlow Recommenders layer runs in this Keras."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    out = tfrs.layers.feature_interaction.Cross(projection_dim=1)(tf.ones((2, 3)))
    if tuple(out.shape) == (2, 3):
        return Check("recommenders", "ok", f"tfrs {tfrs.__version__}: a cross layer runs")
    return Check("recommenders", "fail", f"a cross layer returned shape {out.shape}", REINSTALL)


def check_xla() -> Check:
    """XLA compiles a gather, a sigmoid and a scatter, the learner's own operations."""
    import numpy as np
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def step(table: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        gradient = tf.sigmoid(tf.gather(table, rows))
        return tf.tensor_scatter_nd_add(table, rows[:, None], gradient)

    table = step(np.zeros((4, 2), np.float32), np.array([1, 1, 3], np.int32)).numpy()
    if table[:, 0].tolist() == [0.0, 1.0, 0.0, 0.5]:
        devices = ", ".join(d.device_type for d in tf.config.list_physical_devices())
        return Check("xla", "ok", f"compiles and computes; devices: {devices}")
    return Check("xla", "fail", f"wrong result {table.tolist()}", REINSTALL)


def check_hashes() -> Check:
    """The NumPy and the in-graph hash agree, so training and serving see the same rows."""
    import pyarrow as pa
    import tensorflow as tf

    from ctr.hashing import fingerprint64

    # One text per length class of the hash, and one that is not ASCII.
    sizes = (0, 1, 4, 8, 16, 17, 32, 33, 64, 65, 300)
    texts = ["élan ✓", *(("0123456789abcdef" * 20)[:size] for size in sizes)]
    ours = fingerprint64(pa.array(texts)).astype("uint64") & (2**62 - 1)
    theirs = tf.strings.to_hash_bucket_fast(texts, 2**62).numpy().astype("uint64")
    wrong = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    if not wrong:
        return Check("hashes", "ok", f"NumPy and TensorFlow agree on {len(texts)} strings")
    return Check("hashes", "fail", f"NumPy and TensorFlow differ on {wrong}", REINSTALL)


LEARNER_CHECKS: list[tuple[str, Callable[[], Check]]] = [
    ("keras", check_keras),
    ("recommenders", check_recommenders),
    ("xla", check_xla),
    ("hashes", check_hashes),
]
