"""Arrow columns as the encoder wants them: strings, float32 numbers, token lists.

Each function takes what a writer may reasonably have chosen (integers for ids, doubles for
numbers, dictionary or large types) and refuses everything else by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.errors import SchemaError, nearest
from ctr.schema import Feature


@dataclass(frozen=True)
class Lists:
    """Token lists of n rows, flat.

    Attributes:
        values: All tokens, row after row.
        offsets: int64[n + 1]; row i holds ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: pa.Array
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row, int64[n]."""
        return np.diff(self.offsets)


def column(batch: pa.RecordBatch, feature: Feature, source: str) -> pa.Array:
    """Returns the column of a feature.

    Raises:
        SchemaError: the batch has no such column, or more than one.
    """
    names = batch.schema.names
    if names.count(feature.name) == 1:
        return batch.column(names.index(feature.name))
    what = "more than one column" if feature.name in names else "no column"
    hint = nearest(feature.name, names) if names else "it has no columns at all"
    raise SchemaError(
        f"feature {feature.name!r} in {source}: there is {what} of this name ({hint}). Write the "
        "column once, or correct the feature in the schema."
    )


def strings(array: pa.Array, feature: Feature, source: str) -> pa.Array:
    """Returns string or binary values, or a dictionary array of them; integers are spelled out.

    Raises:
        SchemaError: the column is neither strings nor integers nor booleans.
    """
    kind = array.type
    if _is_text(kind):
        return array
    if pa.types.is_dictionary(kind):
        values = strings(array.dictionary, feature, source)
        return pa.DictionaryArray.from_arrays(array.indices, values)
    if _spelled_out(kind):
        return pc.cast(array, pa.string())
    raise _wrong_type(
        feature, source, "string, integer or boolean", kind, _advice_for_strings(feature, kind)
    )


def numbers(array: pa.Array, feature: Feature, source: str) -> NDArray[np.float32]:
    """Returns float32[n]; null becomes NaN and a double too large for float32 becomes infinite.

    Raises:
        SchemaError: the column is not numeric.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return numbers(array.dictionary_decode(), feature, source)
    accepted = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if not any(accepts(kind) for accepts in accepted):
        advice = 'Declare kind = "categorical", or write numbers.'
        raise _wrong_type(feature, source, "integer or floating point", kind, advice)
    return pc.cast(array, pa.float32(), safe=False).to_numpy(zero_copy_only=False)


def lists(array: pa.Array, feature: Feature, source: str) -> Lists:
    """Returns the token lists of a list column; a null list is an empty one.

    Raises:
        SchemaError: the column is not a list of strings, integers or booleans.
    """
    kind = array.type
    n = len(array)
    if pa.types.is_null(kind):
        return Lists(pa.array([], pa.string()), np.zeros(n + 1, np.int64))
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        advice = "Write a list, or set separator or text for a bag that arrives as one string."
        raise _wrong_type(feature, source, "list of strings", kind, advice)
    values = array.flatten()
    if not (_is_text(values.type) or _is_coded(values.type) or _spelled_out(values.type)):
        raise _wrong_type(feature, source, "list of strings", kind, "Write the tokens as strings.")
    values = strings(values, feature, source)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(pc.list_value_length(array).fill_null(0).to_numpy(), out=offsets[1:])
    return Lists(values, offsets)


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _is_coded(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and (
        _is_text(kind.value_type) or _spelled_out(kind.value_type)
    )


def _spelled_out(kind: pa.DataType) -> bool:
    """True for types whose values have one obvious spelling as a string."""
    return (
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
        or pa.types.is_string_view(kind)
    )


def _advice_for_strings(feature: Feature, kind: pa.DataType) -> str:
    if feature.kind == "bag":
        return "Write one string per row, or drop separator and text for a bag of lists."
    if pa.types.is_nested(kind):
        return 'Declare kind = "bag", or fix the writer.'
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return 'Declare kind = "numeric" (with bins to get ids), or write the ids as strings.'
    return "Write the ids as strings."


def _wrong_type(
    feature: Feature, source: str, expected: str, received: pa.DataType, advice: str
) -> SchemaError:
    return SchemaError(
        f"{feature.kind} feature {feature.name!r} in {source}: expected {expected}, "
        f"received {received}. {advice}"
    )
