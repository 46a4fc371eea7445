"""The dense path as a LiteRT flatbuffer: encoded ids and numbers in, logits out.

Hashing stays outside: LiteRT has no string operations that do it. ``ctr.encoding.Encoder`` makes
the same ids in NumPy.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from ctr.encoding import Encoder
from ctr.errors import ExportError
from ctr.learner import Learner

#: Place inside a version.
LITE = "lite/model.tflite"


def write_lite(learner: Learner, folder: Path) -> None:
    """Converts a learner's prediction and writes it into a version folder.

    Raises:
        ExportError: the model uses an operation that LiteRT does not have.
    """
    ids, numeric = learner.input_signature
    specs = [
        tf.TensorSpec(ids.shape, ids.dtype, name="ids"),
        tf.TensorSpec(numeric.shape, numeric.dtype, name="numeric"),
    ]

    def logits(ids: tf.Tensor, numeric: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": learner.logits(ids, numeric)}

    traced = tf.function(logits, input_signature=specs).get_concrete_function()
    # It warns that gradients are lost, which a prediction does not miss.
    loggers = {logging.getLogger(name): 0 for name in ("absl", "tensorflow")}
    for logger in loggers:
        loggers[logger] = logger.level
        logger.setLevel(logging.ERROR)
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], learner)
        content = converter.convert()
    except Exception as error:  # the converter raises types of its own, undocumented
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"{folder}: LiteRT cannot express this model: {reason[0] if reason else error!r}. "
            "Export without --lite."
        ) from None
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
    path = folder / LITE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


class LitePredictor:
    """Predicts raw columns with a version's flatbuffer; not to be shared between threads.

    Args:
        folder: Version folder exported with ``--lite``.
        encoder: Encoder of the model's schema.

    Raises:
        ExportError: the version has no flatbuffer, or LiteRT cannot load it.
        ModuleNotFoundError: the ``lite`` extra is not installed.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if not (folder / LITE).is_file():
            raise ExportError(f"{folder} has no {LITE}. Export with --lite.")
        self._encoder = encoder
        try:
            self._interpreter = Interpreter(model_path=str(folder / LITE), num_threads=1)
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"{folder / LITE} cannot be loaded: {error}") from None
        self._inputs = {
            "numeric" if "numeric" in found["name"] else "ids": found["index"]
            for found in self._interpreter.get_input_details()
        }
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._rows = -1

    def predict(self, columns: pa.RecordBatch | pa.Table) -> NDArray[np.float32]:
        """Returns probabilities float32[N, T].

        Raises:
            SchemaError: a column is missing or cannot be read as its feature.
        """
        encoded = self._encoder.encode(columns, "the request")
        return self.predict_encoded(encoded.ids, encoded.numeric)

    def predict_encoded(
        self, ids: NDArray[np.int32], numeric: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Returns probabilities float32[N, T] for ids int32[N, S] and numeric float32[N, M]."""
        values = {"ids": ids, "numeric": numeric}
        if len(ids) != self._rows:
            for name, index in self._inputs.items():
                self._interpreter.resize_tensor_input(index, values[name].shape)
            self._interpreter.allocate_tensors()
            self._rows = len(ids)
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, values[name])
        self._interpreter.invoke()
        logits = self._interpreter.get_tensor(self._output).astype(np.float64)
        return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
