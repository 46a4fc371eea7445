"""Side columns: what losses, samplers and calibrators may ask for beside features and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.errors import SchemaError, nearest
from ctr.hashing import fingerprint64
from ctr.schema import Schema

#: Side columns that a stream carries by itself -> (shard column, dtype).
BUILT_IN: dict[str, tuple[str, type[np.generic]]] = {
    "event_time": ("event_time", np.int64),  # microseconds since the epoch
    "example": ("example_id", np.int64),  # hash of the example id
    "query": ("query_id", np.int64),  # hash of the query id
    "position": ("position", np.int32),
    "sampling_rate": ("sampling_rate", np.float32),
    "correction": ("correction", np.int32),  # 1: a label that came after its example
}


def side_dtype(name: str) -> type[np.generic]:
    """Returns the dtype of a side column; those of the schema are float32."""
    return BUILT_IN[name][1] if name in BUILT_IN else np.float32


def check_side(names: Sequence[str], schema: Schema) -> None:
    """Raises SchemaError if the stream cannot carry one of the side columns."""
    for name in names:
        column = BUILT_IN[name][0] if name in BUILT_IN else None
        if column is not None and schema.has(column):
            continue
        if column is not None:
            raise SchemaError(
                f"schema {schema.name!r} has no {column}, which this recipe needs. Name its raw "
                f"column under [columns] as `{column} = ...` and ingest again."
            )
        if name not in schema.side:
            raise SchemaError(
                f"schema {schema.name!r} has no side column {name!r}, which this recipe needs: "
                f"{nearest(name, [*schema.side, *BUILT_IN])}. List it under `side` and ingest "
                "again."
            )


def shard_column(name: str) -> str:
    """Returns the shard column that a side column is read from."""
    return BUILT_IN[name][0] if name in BUILT_IN else name


def side_values(batch: pa.RecordBatch, name: str) -> NDArray[np.generic]:
    """Returns the values of a side column, one per row, of ``side_dtype(name)``.

    Raises:
        SchemaError: the column does not hold numbers.
    """
    column = batch.column(shard_column(name))
    if name in ("example", "query"):
        return fingerprint64(column).view(np.int64)
    target = pa.int64() if name == "event_time" else pa.from_numpy_dtype(side_dtype(name))
    try:
        values = column.cast(target).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise SchemaError(f"side column {name!r}: expected numbers ({error}).") from None
    return np.ascontiguousarray(values, side_dtype(name))
