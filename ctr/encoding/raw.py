"""Arrow columns as NumPy inputs of an exported model, which hashes raw strings itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.encoding import bags, columns
from ctr.schema import Feature


def raw_column(array: pa.Array, feature: Feature, source: str) -> NDArray[Any]:
    """Converts one column.

    Args:
        array: The column, n rows.
        feature: Its feature; not a cross.
        source: Where the column comes from, for error messages.

    Returns:
        float32[n] with NaN for null for a numeric feature; else an object array of strings (bytes
        for binary columns), "" for null: [n], or [n, L] for a bag of lists, where L >= 1 is the
        length of the longest.

    Raises:
        SchemaError: the column has a type its feature cannot be read from.
    """
    if feature.kind == "numeric":
        return columns.numbers(array, feature, source)
    if feature.kind == "bag" and bags.arrives_as_list(feature):
        return _padded(bags.tokens(array, feature, source), len(array))
    values = columns.strings(array, feature, source)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return _objects(pc.fill_null(values, pa.scalar("", values.type)))


def _padded(bag: columns.Lists, n: int) -> NDArray[Any]:
    out = np.full((n, max(1, int(bag.lengths.max(initial=0)))), "", object)
    row_of = np.repeat(np.arange(n), bag.lengths)
    out[row_of, np.arange(len(row_of)) - bag.offsets[row_of]] = _objects(bag.values)
    return out


def _objects(values: pa.Array) -> NDArray[Any]:
    return values.to_numpy(zero_copy_only=False)
