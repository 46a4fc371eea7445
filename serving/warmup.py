"""Requests that warm a model up, in the file that TensorFlow Serving replays before it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from ctr.encoding import Encoder
from ctr.errors import ExportError

#: Where TensorFlow Serving looks for it.
WARMUP = "assets.extra/tf_serving_warmup_requests"
#: Rows of the requests, per signature.
BATCHES = (1, 32, 512)


def made_up_rows(encoder: Encoder, n: int) -> dict[str, NDArray[Any]]:
    """Returns columns of n different rows that come from nobody's log: an export holds no data.

    Returns:
        By column name: object[n] strings, object[n, L] tokens for list bags, float32[n] numbers.
        The last row lacks every value.
    """
    out: dict[str, NDArray[Any]] = {}
    for place, (name, spec) in enumerate(encoder.signature().items()):
        if spec.dtype == tf.float32:
            column = np.arange(n, dtype=np.float32) % 7 + place
            column[-1] = np.nan
        elif spec.shape.rank == 2:
            column = np.array([[f"{row}", f"{row + 1}"] for row in range(n)], object)
            column[-1] = ""
        else:
            column = np.array([f"{row}" for row in range(n)], object)
            column[-1] = ""
        out[name] = column
    return out


def write_warmup(folder: Path, encoder: Encoder, signatures: Mapping[str, tuple[str, ...]]) -> None:
    """Writes the warm-up file of a version.

    Args:
        folder: The version.
        encoder: Makes the requests fit the schema.
        signatures: By name, the inputs a signature takes: the schema's columns, or ``examples``.
    """
    path = folder / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, inputs in signatures.items():
            for n in BATCHES:
                rows = made_up_rows(encoder, n)
                columns = rows if set(inputs) == set(rows) else {"examples": as_examples(rows)}
                log = PredictLog(request=predict_request(columns, name))
                writer.write(PredictionLog(predict_log=log).SerializeToString())


def read_warmup(folder: Path) -> Iterator[PredictRequest]:
    """Yields the warm-up requests of a version; none if it has no such file.

    Raises:
        ExportError: the file is damaged.
    """
    path = folder / WARMUP
    if not path.is_file():
        return
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield PredictionLog.FromString(record).predict_log.request
    except (tf.errors.DataLossError, ValueError) as error:
        raise ExportError(f"{path} is damaged: {error}") from None


def predict_request(
    columns: Mapping[str, NDArray[Any]], signature: str = "", model: str = ""
) -> PredictRequest:
    """Returns the request of ``PredictionService.Predict`` with these inputs."""
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, column in columns.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(column.tolist(), _dtype(column)))
    return request


def as_examples(rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Returns the rows as serialised ``tf.Example``, object[n]; what is missing is left out."""
    n = len(next(iter(rows.values())))
    return np.array([_example(rows, row) for row in range(n)], object)


def _example(rows: Mapping[str, NDArray[Any]], row: int) -> bytes:
    example = tf.train.Example()
    for name, column in rows.items():
        feature = example.features.feature[name]
        if column.dtype == object:
            tokens = column[row] if column.ndim == 2 else [column[row]]
            feature.bytes_list.value.extend(token.encode() for token in tokens if token)
        elif not np.isnan(column[row]):
            feature.float_list.value.append(column[row])
        if not feature.WhichOneof("kind") or not (
            feature.bytes_list.value or feature.float_list.value
        ):
            del example.features.feature[name]
    return example.SerializeToString()


def _dtype(column: NDArray[Any]) -> tf.DType:
    return tf.string if column.dtype == object else tf.float32
