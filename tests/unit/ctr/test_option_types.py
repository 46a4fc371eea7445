from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from ctr.option_types import names, non_negative_float, non_negative_int, positive_int


def test_numbers_inside_their_range_are_read() -> None:
    assert (positive_int("1"), non_negative_int("0"), non_negative_float("0.5")) == (1, 0, 0.5)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((positive_int, text) for text in ("0", "-1", "1.5", "one", "")),
        *((non_negative_int, text) for text in ("-1", "x")),
        *((non_negative_float, text) for text in ("-0.1", "nan", "inf", "x")),
    ],
)
def test_others_are_refused(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"received {text!r}"):
        read(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("a,b", ("a", "b")), (" a , b ,", ("a", "b")), ("", ()), (",", ())]
)
def test_lists_of_names(text: str, expected: tuple[str, ...]) -> None:
    assert names(text) == expected
