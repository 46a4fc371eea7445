"""One loaded version: named tensors in, named tensors out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from ctr.errors import ExportError, nearest
from serving.predictor import read_manifest
from serving.server.options import RequestError
from serving.signatures import DEFAULT
from serving.warmup import read_warmup

#: Cells of one input, rows x tokens: padding must not turn a small request into a large one.
MAX_CELLS = 1 << 20


@dataclass(frozen=True)
class Signature:
    """What a signature takes, by input name."""

    name: str
    inputs: Mapping[str, tf.TensorSpec]

    def rows(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        """Returns the number of rows after checking names, types, ranks and lengths.

        Raises:
            RequestError: they do not fit; the message names the input.
        """
        for name in inputs:
            if name not in self.inputs:
                raise RequestError(
                    f"{self.name} has no input {name!r}: {nearest(name, self.inputs)}"
                )
        for name, spec in self.inputs.items():
            if name not in inputs:
                raise RequestError(f"{self.name} lacks the input {name!r}.")
            values = inputs[name]
            dtype = object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
            if values.dtype != dtype:
                raise RequestError(f"input {name!r}: expected {spec.dtype.name}.")
            if values.ndim != spec.shape.rank:
                raise RequestError(
                    f"input {name!r}: expected rank {spec.shape.rank}, received {values.ndim}."
                )
            if values.size > MAX_CELLS:
                raise RequestError(f"input {name!r}: {values.size:,} values, at most {MAX_CELLS:,}")
        lengths = {name: len(values) for name, values in inputs.items()}
        if len(set(lengths.values())) != 1:
            name = min(lengths, key=lambda key: (lengths[key], key))
            raise RequestError(
                f"input {name!r} has {lengths[name]} rows, others have {max(lengths.values())}."
            )
        rows = next(iter(lengths.values()))
        if not rows:
            raise RequestError("there are no rows.")
        return rows


class ServedModel:
    """A version that was verified, loaded and warmed up.

    Args:
        folder: The version.
        warm_up: False skips the warm-up requests.

    Raises:
        ExportError: a file is missing or damaged, or the model cannot be loaded or warmed up.
    """

    def __init__(self, folder: Path, warm_up: bool = True) -> None:
        start = time.monotonic()
        self.version = int(folder.name)
        self.manifest = read_manifest(folder)
        self.in_flight = 0
        try:
            self._model = tf.saved_model.load(str(folder))
            saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        except (OSError, ValueError, DecodeError, tf.errors.OpError) as error:
            raise ExportError(f"{folder}: the SavedModel cannot be loaded: {error}") from None
        self.signature_defs = dict(saved.meta_graphs[0].signature_def)
        self.signatures = {
            name: Signature(name, traced.structured_input_signature[1])
            for name, traced in self._model.signatures.items()
        }
        if warm_up:
            self._warm_up(folder)
        self.load_s = time.monotonic() - start

    def signature(self, name: str) -> Signature:
        """Returns a signature; an empty name means ``serving_default``.

        Raises:
            RequestError: the model has no such signature.
        """
        found = self.signatures.get(name or DEFAULT)
        if found is None:
            raise RequestError(f"no signature {name!r}: {nearest(name, self.signatures)}")
        return found

    def run(self, signature: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Computes a signature; takes inputs that ``Signature.rows`` accepts.

        Raises:
            RequestError: the values cannot be read, such as a damaged ``tf.Example``.
        """
        specs = self.signatures[signature].inputs
        try:
            tensors = {k: tf.constant(v, specs[k].dtype) for k, v in inputs.items()}
            found = self._model.signatures[signature](**tensors)
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            reason = getattr(error, "message", None) or str(error)
            raise RequestError(f"{signature}: {reason.splitlines()[0][:300]}") from None
        return {name: value.numpy() for name, value in found.items()}

    def _warm_up(self, folder: Path) -> None:
        for request in read_warmup(folder):
            name = request.model_spec.signature_name
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            try:
                found = self.run(name, inputs)
            except (KeyError, RequestError) as error:
                raise ExportError(
                    f"{folder}: the warm-up request {name!r} fails: {error}"
                ) from None
            if not np.isfinite(found["probabilities"]).all():
                raise ExportError(f"{folder}: the warm-up request {name!r} gives NaN.")
