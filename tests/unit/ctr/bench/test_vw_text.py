"""Examples in the peer's text format."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ctr.bench.vw_text import chosen, escaped, vw_lines
from ctr.errors import ConfigError, SchemaError
from ctr.schema import Feature, Label, Schema

FEATURES = [
    Feature("user"),
    Feature("tags", kind="bag", separator=","),
    Feature("words", kind="bag", text=True),
    Feature("items", kind="bag"),
    Feature("price", kind="numeric", log=True),
    Feature("age", kind="numeric", bins=(10.0, 20.0)),
]


def batch(**columns: pa.Array) -> pa.RecordBatch:
    defaults = {
        "user": pa.array(["u1"]), "tags": pa.array([""]), "words": pa.array([""]),
        "items": pa.array([[]], pa.list_(pa.string())), "price": pa.array([None], pa.float32()),
        "age": pa.array([None], pa.float32()),
    }  # fmt: skip
    return pa.RecordBatch.from_pydict({**defaults, **columns})


def line(label: int = 1, weight: float = 1.0, **columns: pa.Array) -> str:
    lines = vw_lines(
        batch(**columns), FEATURES, np.array([label], np.int8), np.array([weight], np.float32)
    )
    return lines[0].as_py()


def test_what_has_a_meaning_in_the_format_is_escaped() -> None:
    text = escaped(pa.array(["a b", "a:b", "a|b", "a\tb", "a\nb", "a\rb", "a%20b"]))
    assert text.to_pylist() == ["a%20b", "a%3Ab", "a%7Cb", "a%09b", "a%0Ab", "a%0Db", "a%2520b"]


@pytest.mark.parametrize("value", ["x y", "x:2", "|b injected", "1 |z y", "a\n-1 |a b", "\u00a0é"])
def test_no_value_can_break_out_of_its_feature(value: str) -> None:
    text = line(user=pa.array([value]), tags=pa.array([value]), items=pa.array([[value]]))
    assert text.startswith("1 |a ")
    assert len(text.splitlines()) == 1
    assert text.count("|") == 3
    assert ":" not in text
    assert len(text.split(" ")) == len("1 |a u |b t |d i ".split(" "))


def test_kinds_of_features() -> None:
    text = line(
        tags=pa.array(["x,,y z"]),
        words=pa.array(["Big SALE: shoes"]),
        items=pa.array([["i1", "i2"]]),
        price=pa.array([np.e - 1], pa.float32()),
        age=pa.array([15.0], pa.float32()),
    )
    assert text == "1 |a u1 |b x y%20z |c big sale shoes |d i1 i2 |e x:1 |f bin1 "


def test_missing_values_are_left_out() -> None:
    assert line(tags=pa.array([None], pa.string())) == "1 |a u1 "


def test_an_example_without_anything_is_still_an_example() -> None:
    nothing = pa.array([None], pa.string())
    assert line(user=nothing) == "1 |"
    assert line(label=-1, user=nothing) == "|"


@pytest.mark.parametrize(
    ("label", "weight", "start"),
    [(1, 1.0, "1 |a"), (0, 1.0, "-1 |a"), (1, 2.5, "1 2.5 |a"), (0, 0.0, "-1 0 |a"),
     (-1, 2.0, "|a")],
)  # fmt: skip
def test_label_and_importance(label: int, weight: float, start: str) -> None:
    assert line(label, weight).startswith(start)


def test_only_plain_features_that_exist_can_be_written() -> None:
    schema = Schema(
        "s", (Feature("a"), Feature("b"), Feature("a_b", cross=("a", "b"))), (Label("click"),)
    )
    assert [feature.name for feature in chosen(schema, ["b", "a"])] == ["b", "a"]
    with pytest.raises(ConfigError, match="a_b"):
        chosen(schema, ["a", "a_b"])
    with pytest.raises(SchemaError, match="did you mean"):
        chosen(schema, ["bb"])
    with pytest.raises(ConfigError, match="received 0"):
        chosen(schema, [])
