"""Bags: token lists and texts as a fixed number of id slots."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.encoding import columns
from ctr.encoding.columns import Lists
from ctr.encoding.words import between_words
from ctr.errors import SchemaError
from ctr.hashing import ids, to_rows
from ctr.schema import Feature


def arrives_as_list(feature: Feature) -> bool:
    """True if the bag's column holds lists, False if it holds one string per row."""
    return not (feature.separator or feature.text)


def tokens(array: pa.Array, feature: Feature, source: str) -> Lists:
    """Returns the non-empty tokens of every row, without n-grams and not yet cut.

    Raises:
        SchemaError: the column has a type that cannot be a bag, or a text is not UTF-8.
    """
    if arrives_as_list(feature):
        return _without_empty(columns.lists(array, feature, source))
    whole = columns.strings(array, feature, source)
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    if not feature.text:
        parts = pc.split_pattern(whole, feature.separator)
        return _without_empty(columns.lists(parts, feature, source))
    try:
        # A cast keeps the offsets of a slice, with which ascii_lower would return zero bytes;
        # concatenation starts them at 0.
        whole = pc.ascii_lower(pa.concat_arrays([pc.cast(whole, pa.large_string())]))
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"text feature {feature.name!r} in {source}: {error}. Write the text as UTF-8."
        ) from None
    spaced = pc.replace_substring_regex(whole, between_words(), " ")
    return _without_empty(columns.lists(pc.split_pattern(spaced, " "), feature, source))


def encode_bag(bag: Lists, feature: Feature, salt: int, n_rows: int, out: NDArray[np.int32]) -> int:
    """Writes the embedding rows of tokens and n-grams into ``out``.

    Args:
        bag: Non-empty tokens of n rows.
        feature: The bag.
        salt: Salt of its ids.
        n_rows: Rows of the embedding table.
        out: int32[n, max_length], filled with 0.

    Returns:
        Number of tokens and n-grams that did not fit.
    """
    n, max_length = out.shape
    row_of = np.repeat(np.arange(n), bag.lengths)
    position = np.arange(len(row_of)) - bag.offsets[row_of]
    left = bag.lengths[row_of] - position
    written = np.zeros(n, np.int64)
    for width in range(1, feature.ngrams + 1):
        target = written[row_of] + position
        first = np.flatnonzero((left >= width) & (target < max_length))
        out[row_of[first], target[first]] = to_rows(_grams(bag, first, width), salt, n_rows)
        written += np.maximum(bag.lengths - width + 1, 0)
    return int(np.maximum(written - max_length, 0).sum())


def _grams(bag: Lists, first: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """Ids of the n-grams of ``width`` words that begin at the tokens ``first``."""
    if width == 1:
        everything = len(first) == len(bag.values)
        return ids(bag.values if everything else bag.values.take(pa.array(first)))
    words = [bag.values.take(pa.array(first + k)) for k in range(width)]
    between = pa.scalar(" ", bag.values.type)
    return ids(pc.binary_join_element_wise(*words, between))


def _without_empty(bag: Lists) -> Lists:
    keep = pc.fill_null(pc.greater(pc.binary_length(bag.values), 0), False)
    kept = np.zeros(len(bag.values) + 1, np.int64)
    np.cumsum(keep.to_numpy(zero_copy_only=False), out=kept[1:])
    if kept[-1] == len(bag.values):
        return bag
    return Lists(bag.values.filter(keep), kept[bag.offsets])
