"""What separates the words of a text: everything but Unicode letters and numbers."""

from __future__ import annotations

import functools
import sys
import unicodedata


def word_ranges() -> list[tuple[int, int]]:
    """Returns the first and last code point of every run of letters and numbers, ascending."""
    ranges = []
    first = -1
    for point in range(sys.maxunicode + 2):
        inside = point <= sys.maxunicode and unicodedata.category(chr(point))[0] in "LN"
        if inside and first < 0:
            first = point
        elif not inside and first >= 0:
            ranges.append((first, point - 1))
            first = -1
    return ranges


@functools.cache
def between_words() -> str:
    r"""Returns the RE2 pattern ``[^\pL\pN]+`` with both classes spelled out.

    Arrow and TensorFlow each carry an RE2 with the Unicode tables of its own release, which
    disagree on recent letters (and which of them Arrow uses can depend on the import order). The
    ranges of Python's tables go into both, and into exported models, instead.
    """
    ranges = "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in word_ranges())
    return f"[^{ranges}]+"
