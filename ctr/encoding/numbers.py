"""Numeric columns: the policy for values that are no numbers, and bins."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.encoding import columns
from ctr.schema import Feature

SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


def finite(
    array: pa.Array, feature: Feature, counts: Counter[str], source: str
) -> NDArray[np.float32]:
    """Reads a numeric column; null, NaN and infinite values all become NaN.

    Args:
        array: The column, n rows.
        feature: Its feature.
        counts: Gets the nulls as ``numeric_missing.<feature>`` and the values that are NaN or
            infinite in float32 as ``numeric_nonfinite.<feature>``.
        source: Where the column comes from, for error messages.

    Returns:
        float32[n].

    Raises:
        SchemaError: the column is not numeric.
    """
    values = columns.numbers(array, feature, source)
    bad = ~np.isfinite(values)
    n_bad = int(bad.sum())
    if not n_bad:
        return values
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    counts[f"numeric_missing.{feature.name}"] += array.null_count
    counts[f"numeric_nonfinite.{feature.name}"] += n_bad - array.null_count
    return np.where(bad, np.float32(np.nan), values)


def bin_edges(feature: Feature) -> NDArray[np.float32]:
    """Returns the ascending edges of a binned feature, float32[len(bins)].

    Subnormal numbers count as zero in edges and in values, because TensorFlow computes so.
    """
    return _without_subnormals(np.array(feature.bins, np.float32))


def bin_ids(values: NDArray[np.float32], feature: Feature) -> NDArray[np.uint64]:
    """Returns uint64[n]: the number of edges at or below a value; ``len(bins) + 1`` for NaN."""
    bins = np.searchsorted(bin_edges(feature), _without_subnormals(values), side="right")
    return np.where(np.isnan(values), len(feature.bins) + 1, bins).astype(np.uint64)


def _without_subnormals(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.abs(values) < SMALLEST_NORMAL, np.float32(0), values)
