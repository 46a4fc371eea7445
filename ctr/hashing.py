"""Ids from strings, and embedding rows from ids.

A string becomes an id of 62 bits (FarmHash64, the same value as
``tf.strings.to_hash_bucket_fast(s, 2**62)``); an id and the salt of its feature become a row of
the one embedding table. ``ctr.encoding.graph`` computes the same numbers on tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.farmhash import EMPTY, PADDING, hash64

#: Ids are below this; a signed 64-bit integer holds them.
N_IDS = 1 << 62
ID_MASK = N_IDS - 1
#: Constants of ``mix`` and ``cross``, shared with the graph: odd multipliers and shifts.
MIX_SHIFTS = (32, 29, 32)
MIX_FACTORS = (0xBEA225F9EB34556D, 0x9FB21C651E98DF25)
CROSS_FACTOR = 0xD6E8FEB86659FD93
CROSS_OFFSET = 0xA24BAED4963EE407

_BLOCK = 8192


def fingerprint64(array: pa.Array) -> NDArray[np.uint64]:
    """Hashes every string of an Arrow array with FarmHash64.

    Args:
        array: string, large_string, binary or large_binary, or a dictionary of one of these.
            It may be a slice. Null hashes like the empty string.

    Returns:
        uint64[n].

    Raises:
        TypeError: the array has another type.

    >>> import pyarrow as pa
    >>> fingerprint64(pa.array(["a", "", None])).tolist()
    [12917804110809363939, 11160318154034397263, 11160318154034397263]
    """
    if pa.types.is_dictionary(array.type):
        return take_by_index(fingerprint64(array.dictionary), array, EMPTY)
    n = len(array)
    if n == 0:
        return np.empty(0, np.uint64)
    offsets = _offsets(array)
    out = hash64(*_padded(array.buffers()[2], offsets))
    if array.null_count:
        out[_is_null(array)] = EMPTY
    return out


def take_by_index(table: NDArray[Any], array: pa.DictionaryArray, null: Any) -> NDArray[Any]:
    """Maps values computed once per dictionary entry onto the rows of a dictionary array.

    Args:
        table: One value per dictionary entry.
        array: The dictionary array, n rows.
        null: Value of rows that are null.

    Returns:
        Array of n values with the dtype of ``table``.
    """
    indices = array.indices
    if not indices.null_count:
        return table[indices.to_numpy()]
    if not len(table):
        return np.full(len(array), null, table.dtype)
    out = table[indices.fill_null(0).to_numpy()]
    out[_is_null(indices)] = null
    return out


def ids(array: pa.Array) -> NDArray[np.uint64]:
    """Returns uint64[n] ids below 2**62 of an array that ``fingerprint64`` takes."""
    out = fingerprint64(array)
    out &= ID_MASK
    return out


def salt64(name: str) -> int:
    """Returns the 64-bit salt that keeps the ids of one namespace apart from all others."""
    return int(fingerprint64(pa.array([f"salt:{name}"]))[0])


def mix(id64: NDArray[np.uint64], salt: Any) -> NDArray[np.uint64]:
    """Spreads ids over 64 bits: every bit of id and salt moves every bit of the result.

    Args:
        id64: uint64[...].
        salt: One integer below 2**64, or uint64 values that broadcast with ``id64``.

    Returns:
        uint64[...].
    """
    out = np.bitwise_xor(id64, np.asarray(salt, np.uint64))
    out ^= out >> MIX_SHIFTS[0]
    out *= MIX_FACTORS[0]
    out ^= out >> MIX_SHIFTS[1]
    out *= MIX_FACTORS[1]
    out ^= out >> MIX_SHIFTS[2]
    return out


def to_rows(id64: NDArray[np.uint64], salt: int, n_rows: int) -> NDArray[np.int32]:
    """Returns int32[n] rows in ``1 .. n_rows - 1`` of ids uint64[n]; row 0 is for padding."""
    out = np.empty(len(id64), np.int32)
    divisor = np.uint64(n_rows - 1)
    for start in range(0, len(id64), _BLOCK):
        mixed = mix(id64[start : start + _BLOCK], salt)
        # NumPy divides by one number with multiplications, but takes remainders the slow way.
        quotient = mixed // divisor
        quotient *= divisor
        mixed -= quotient
        mixed += np.uint64(1)
        out[start : start + _BLOCK] = mixed
    return out


def cross(*id64s: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Combines two or more ids per row into one; the order matters.

    Args:
        id64s: uint64[n] each.

    Returns:
        uint64[n] ids below 2**62.
    """
    out = id64s[0]
    for id64 in id64s[1:]:
        out = mix(id64, (out + np.uint64(CROSS_OFFSET)) * np.uint64(CROSS_FACTOR))
    return out & np.uint64(ID_MASK)


def _offsets(array: pa.Array) -> NDArray[np.int64]:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        width: Any = np.int32
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        width = np.int64
    else:
        raise TypeError(f"cannot hash {kind}: expected string or binary, or a dictionary of them")
    values = np.frombuffer(array.buffers()[1], width, len(array) + 1, array.offset * width().nbytes)
    return values.astype(np.int64)


def _padded(
    buffer: pa.Buffer | None, offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Gives the strings' bytes with the padding that hashing needs, copied only if need be."""
    first, last = int(offsets[0]), int(offsets[-1])
    data = np.frombuffer(buffer, np.uint8) if buffer else np.empty(0, np.uint8)
    if len(data) >= last + PADDING:
        return data, offsets
    padded = np.zeros(last - first + PADDING, np.uint8)
    padded[: last - first] = data[first:last]
    return padded, offsets - first


def _is_null(array: pa.Array) -> NDArray[np.bool_]:
    return pc.is_null(array).to_numpy(zero_copy_only=False)
