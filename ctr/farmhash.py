"""FarmHash64 of many byte strings at once, in NumPy.

This is the ``farmhashna`` 64-bit hash, whose values are fixed for good; TensorFlow's
``tf.strings.to_hash_bucket_fast`` reduces the same number. The algorithm reads a string as
overlapping little-endian words and has one formula per length class, so rows are grouped by
class and each formula runs on whole columns of words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

K0 = 0xC3A5C85C97CB3127
K1 = 0xB492B66FBE98F273
K2 = 0x9AE16A3B2F90404F
#: Hash of the empty string.
EMPTY = K2
#: Bytes that must be readable after the last string, because words are read past its end.
PADDING = 8

_WORD = np.dtype("<u8")
_ALL = (1 << 64) - 1
_SEED = 81
#: Rows per block: a handful of 8-byte temporaries of this many rows stay in the L2 cache.
_BLOCK = 8192
#: Length class of the lengths 0 to 65: 0, 1-3, 4-7, 8-16, 17-32, 33-64 and over 64 bytes.
_CLASS_OF = np.repeat(np.arange(7, dtype=np.uint8), [1, 3, 4, 9, 16, 32, 1])
_OVER_64 = 6

Words = NDArray[np.uint64]
#: Gives the 8-byte words that start this many bytes (one number, or one per row) into the rows.
Fetch = Callable[[Any], Words]


def hash64(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hashes the strings ``data[offsets[i]:offsets[i + 1]]``.

    Args:
        data: uint8[size_bytes], with at least ``PADDING`` bytes after ``offsets[-1]``.
        offsets: int64[n + 1], ascending.

    Returns:
        uint64[n], the FarmHash64 of every string.
    """
    n = len(offsets) - 1
    out = np.empty(n, np.uint64)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        _hash_block(data, offsets[start : stop + 1], out[start:stop])
    return out


def _hash_block(data: NDArray[np.uint8], offsets: NDArray[np.int64], out: Words) -> None:
    starts = offsets[:-1]
    lengths = np.diff(offsets)
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest == longest <= 64:
        out[:] = _hash_to_64(
            _even_fetch(data, int(starts[0]), longest, len(out)), longest, len(out)
        )
        return
    # One word may start at every byte: a view, so nothing is copied until rows are picked.
    words: Words = np.ndarray((len(data) - 7,), _WORD, data, strides=(1,))
    classes = _CLASS_OF[np.minimum(lengths, 65)]
    for number in np.flatnonzero(np.bincount(classes)):
        rows = np.flatnonzero(classes == number)
        if number == _OVER_64:
            out[rows] = _hash_over_64(words, starts[rows], lengths[rows])
        else:
            fetch = _picking_fetch(words, starts[rows])
            out[rows] = _hash_to_64(fetch, lengths[rows], len(rows))


def _even_fetch(data: NDArray[np.uint8], first: int, step: int, n: int) -> Fetch:
    """Rows of one length lie at equal distances: a strided copy is far cheaper than picking."""

    def fetch(at: int) -> Words:
        return np.array(np.ndarray((n,), _WORD, data, offset=first + at, strides=(step,)))

    return fetch


def _picking_fetch(words: Words, starts: NDArray[np.int64]) -> Fetch:
    return lambda at: words[starts + at]


def _hash_to_64(fetch: Fetch, lengths: Any, n: int) -> Words:
    """Hashes rows of one length class up to 64 bytes; ``lengths`` is one int or int64[n]."""
    longest = lengths if isinstance(lengths, int) else int(lengths.max())
    if longest == 0:
        return np.full(n, EMPTY, np.uint64)
    if longest < 4:
        return _hash_1_to_3(fetch, lengths)
    if longest < 8:
        return _hash_4_to_7(fetch, lengths)
    if longest <= 16:
        return _hash_8_to_16(fetch, lengths)
    if longest <= 32:
        return _hash_17_to_32(fetch, lengths)
    return _hash_33_to_64(fetch, lengths)


def _unsigned(lengths: Any) -> Any:
    return np.uint64(lengths) if isinstance(lengths, int) else lengths.astype(np.uint64)


def _rotate(x: Words, right: int) -> Words:
    turned: Words = np.right_shift(x, right)
    turned |= x << (64 - right)
    return turned


def _fold(x: Words) -> Words:
    """Xors the high bits into the low ones, in place."""
    x ^= x >> 47
    return x


def _join(u: Words, v: Words, mul: Any) -> Words:
    """Hashes two words into one; overwrites ``u``."""
    u ^= v
    u *= mul
    _fold(u)
    u ^= v
    u *= mul
    _fold(u)
    u *= mul
    return u


def _hash_1_to_3(fetch: Fetch, lengths: Any) -> Words:
    size = _unsigned(lengths)
    word = fetch(0)
    y: Words = np.bitwise_and(word, 0xFF)
    y += ((word >> ((size >> 1) << 3)) & 0xFF) << 8
    z: Words = (word >> ((size - 1) << 3)) & 0xFF
    z <<= 2
    z += size
    y *= K2
    z *= K0
    y ^= z
    _fold(y)
    y *= K2
    return y


def _hash_4_to_7(fetch: Fetch, lengths: Any) -> Words:
    size = _unsigned(lengths)
    word = fetch(0)
    # Both 4-byte words overlap inside the one 8-byte word.
    tail = (word >> ((size - 4) << 3)) & 0xFFFFFFFF
    word &= 0xFFFFFFFF
    word <<= 3
    word += size
    return _join(word, tail, K2 + 2 * size)


def _hash_8_to_16(fetch: Fetch, lengths: Any) -> Words:
    mul = K2 + 2 * _unsigned(lengths)
    a = fetch(0)
    b = fetch(lengths - 8)
    a += K2
    c = _rotate(b, 37)
    c *= mul
    c += a
    d = _rotate(a, 25)
    d += b
    d *= mul
    return _join(c, d, mul)


def _two_pairs(a: Words, b: Words, c: Words, d: Words, addend: Any, mul: Any) -> Words:
    """Hashes four words; ``addend`` (added to ``b`` in the second half) varies by class."""
    u = _rotate(a + b, 43)
    u += _rotate(c, 30)
    u += d
    v = _rotate(b + addend, 18)
    v += a
    v += c
    return _join(u, v, mul)


def _hash_17_to_32(fetch: Fetch, lengths: Any) -> Words:
    mul = K2 + 2 * _unsigned(lengths)
    a = fetch(0) * K1
    c = fetch(lengths - 8) * mul
    d = fetch(lengths - 16) * K2
    return _two_pairs(a, fetch(8), c, d, K2, mul)


def _hash_33_to_64(fetch: Fetch, lengths: Any) -> Words:
    mul = K2 + 2 * _unsigned(lengths)
    a = fetch(0) * K2
    b = fetch(8)
    c = fetch(lengths - 8) * mul
    d = fetch(lengths - 16) * K2
    y = _rotate(a + b, 43)
    y += _rotate(c, 30)
    y += d
    z = _two_pairs(a, b, c, d, K2, mul)
    g = (y + fetch(lengths - 32)) * mul
    h = (z + fetch(lengths - 24)) * mul
    return _two_pairs(fetch(16) * mul, fetch(24), g, h, a, mul)


def _absorb(fetch: Fetch, at: Any, a: Words, b: Words) -> tuple[Words, Words]:
    """Takes 32 bytes into the pair ``(a, b)``."""
    last = fetch(at + 24)
    a = a + fetch(at)
    b = _rotate(b + a + last, 21)
    before = a
    a = a + fetch(at + 8)
    a += fetch(at + 16)
    b += _rotate(a, 44)
    a += last
    b += before
    return a, b


def _round(fetch: Fetch, at: Any, state: Words, mul: Any, weight: int) -> Words:
    """Takes 64 bytes into the seven words ``x, y, z, v0, v1, w0, w1`` (uint64[7, rows])."""
    x, y, z, v0, v1, w0, w1 = state
    x = _rotate(x + y + v0 + fetch(at + 8), 37) * mul
    y = _rotate(y + v1 + fetch(at + 48), 42) * mul
    x ^= w1 * weight
    y += v0 * weight
    y += fetch(at + 40)
    z = _rotate(z + w0, 33) * mul
    v0, v1 = _absorb(fetch, at, v1 * mul, x + w0)
    w0, w1 = _absorb(fetch, at + 32, z + w1, y + fetch(at + 16))
    return np.stack([z, y, x, v0, v1, w0, w1])


def _hash_over_64(words: Words, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Words:
    # Longest rows first, so that the rows with a block left are always a prefix.
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    blocks = (lengths - 1) >> 6
    y = (_SEED * K1 + 113) & _ALL
    z = (y * K2 + 113) & _ALL
    z = ((z ^ (z >> 47)) * K2) & _ALL
    state = np.zeros((7, len(order)), np.uint64)
    state[0] = words[starts] + np.uint64(_SEED * K2 & _ALL)
    state[1] = y
    state[2] = z
    n_left = np.searchsorted(-blocks, -np.arange(blocks[0]))
    for block, n in enumerate(n_left.tolist()):
        fetch = _picking_fetch(words, starts[:n])
        state[:, :n] = _round(fetch, block << 6, state[:, :n], K1, 1)
    mul = K1 + ((state[2] & 0xFF) << 1)
    state[5] += ((lengths - 1) & 63).astype(np.uint64)
    state[3] += state[5]
    state[5] += state[3]
    fetch = _picking_fetch(words, starts)
    x, y, z, v0, v1, w0, w1 = _round(fetch, lengths - 64, state, mul, 9)
    left = _join(v0, w0, mul)
    left += _fold(y) * K0
    left += z
    right = _join(v1, w1, mul)
    right += x
    out = np.empty_like(left)
    out[order] = _join(left, right, mul)
    return out
