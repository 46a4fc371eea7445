"""Types of command line options, for ``argparse``: bounded numbers, lists of names."""

from __future__ import annotations

import argparse
import math


def positive_int(text: str) -> int:
    """Reads an integer of at least 1."""
    return _integer(text, 1)


def non_negative_int(text: str) -> int:
    """Reads an integer of at least 0."""
    return _integer(text, 0)


def non_negative_float(text: str) -> float:
    """Reads a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, received {text!r}")
    return value


def names(text: str) -> tuple[str, ...]:
    """Reads names separated by commas; an empty text is none.

    >>> names("lr,wide_dcn"), names("")
    (('lr', 'wide_dcn'), ())
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected an integer >= {least}, received {text!r}")
    return value
