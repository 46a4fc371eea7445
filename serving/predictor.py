"""Predictions from an exported model, in the process that asks for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from ctr.data.manifest import file_sha256
from ctr.encoding import Encoder
from ctr.errors import ExportError, SchemaError
from ctr.schema import schema_from_dict
from serving.signatures import DEFAULT
from serving.versions import FORMAT, MANIFEST, newest_version

#: What a model predicts from: columns by name, or an Arrow batch or table.
Columns: TypeAlias = Mapping[str, NDArray[Any] | Sequence[Any]] | pa.RecordBatch | pa.Table


class Predictor:
    """An exported model that predicts from raw columns.

    Args:
        folder: Version folder with the SavedModel.
        encoder: Encoder of the model's schema.
        manifest: What ``manifest.json`` says, if it is written yet.

    Raises:
        ExportError: the SavedModel cannot be loaded.
    """

    def __init__(
        self, folder: Path, encoder: Encoder, manifest: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.manifest = dict(manifest or {})
        self.encoder = encoder
        try:
            # The signature does not keep its variables alive, the loaded model does.
            self._model = tf.saved_model.load(str(folder))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise ExportError(f"{folder}: the SavedModel cannot be loaded: {error}") from None
        if DEFAULT not in self._model.signatures:
            raise ExportError(f"{folder}: the SavedModel has no signature {DEFAULT!r}.")

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Loads a version folder, or the newest version of a folder of versions.

        Raises:
            ExportError: there is no exported model, or a file of it is missing or damaged.
        """
        folder = Path(path)
        if not (folder / MANIFEST).is_file():
            newest = newest_version(folder)
            if newest is None:
                raise ExportError(f"{folder} holds no exported model. Make one with octr export.")
            folder = newest
        manifest = read_manifest(folder)
        try:
            schema = schema_from_dict(manifest["schema"], str(folder / MANIFEST))
            encoder = Encoder(schema, manifest["recipe"]["table_rows"])
        except (KeyError, TypeError) as error:
            raise ExportError(f"{folder / MANIFEST} lacks {error}. Export again.") from None
        return cls(folder, encoder, manifest)

    def predict(self, columns: Columns) -> NDArray[np.float32]:
        """Predicts N rows.

        Args:
            columns: One per feature of the schema (crosses have none), of N values each: strings
                or integers for a categorical, numbers for a numeric, lists of strings (or one
                string, with separator or text) for a bag. None means missing. Further columns
                are ignored.

        Returns:
            Probabilities, float32[N] for one label, float32[N, T] for several.

        Raises:
            SchemaError: a column is missing, has another length or cannot be read as its feature.
        """
        return self.outputs(columns)["probabilities"]

    def outputs(self, columns: Columns, signature: str = DEFAULT) -> dict[str, NDArray[Any]]:
        """Returns all outputs of a signature that takes raw columns, by name.

        Raises:
            ExportError: the model has no such signature, or it cannot compute it.
            SchemaError: as ``predict``.
        """
        if signature not in self._model.signatures:
            known = ", ".join(self._model.signatures)
            raise ExportError(f"{self.folder} has no signature {signature!r}; it has {known}.")
        if isinstance(columns, Mapping):
            columns = self._batch(columns)
        raw = self.encoder.raw_columns(columns, "the request")
        specs = self.encoder.signature()
        tensors = {name: tf.constant(values, specs[name].dtype) for name, values in raw.items()}
        try:
            found = self._model.signatures[signature](**tensors)
        except (TypeError, tf.errors.OpError) as error:
            raise ExportError(f"{self.folder}: {signature} fails: {error}") from None
        return {name: value.numpy() for name, value in found.items()}

    def _batch(self, columns: Mapping[str, NDArray[Any] | Sequence[Any]]) -> pa.RecordBatch:
        arrays: dict[str, pa.Array] = {}
        for name in self.encoder.columns:
            if name not in columns:
                continue  # the encoder says which one is missing, and what there is instead
            values = columns[name]
            try:
                # Arrow takes no arrays of rank 2.
                flat = isinstance(values, np.ndarray) and values.ndim == 1
                arrays[name] = pa.array(values if flat else list(values))
            except (pa.ArrowException, TypeError) as error:
                raise SchemaError(f"feature {name!r} in the request: {error}") from None
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise SchemaError(f"the request's columns differ in length: {lengths}.")
        return pa.RecordBatch.from_pydict(arrays)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads ``manifest.json`` and checks every file it lists.

    Raises:
        ExportError: the manifest cannot be read, or a file is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        found, files = manifest["format"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{folder / MANIFEST} cannot be read ({error!r}). Export again."
        ) from None
    if found != FORMAT:
        raise ExportError(
            f"{folder / MANIFEST} has format {found!r}, this version reads {FORMAT}. Export again."
        )
    for name, digest in files.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise ExportError(f"{folder / name} is missing or damaged. Export again.")
    return manifest
