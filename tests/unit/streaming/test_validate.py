import numpy as np
import pyarrow as pa
import pytest

from ctr.errors import SchemaError
from ctr.schema import Feature, Label, Schema
from streaming.formats.block import RawBlock
from streaming.source import Source
from streaming.validate import validate_impressions

SCHEMA = Schema(
    name="t",
    features=(
        Feature("user"),
        Feature("price", kind="numeric"),
        Feature("price_bin", kind="numeric", column="price", bins=(1.0, 2.0)),
        Feature("tags", kind="bag", separator=" "),
        Feature("pair", cross=("user", "price_bin")),
    ),
    labels=(Label("click"), Label("like", column="stars", threshold=4.0)),
    columns={
        "example_id": ("a", "b"),
        "event_time": ("ts",),
        "weight": ("w",),
        "sampling_rate": ("rate",),
        "position": ("pos",),
    },
    side=("cost",),
)
ROW = {
    "a": "x", "b": "y", "ts": "5", "w": "2", "rate": "0.5", "pos": "3", "user": "u", "price": "1.5",
    "tags": "p q", "click": "1", "stars": "4.5", "cost": "0.25",
}  # fmt: skip
SOURCE = Source(event_time="us", types={"cost": "float64"})


def block(*rows, drop=()):
    columns = {name: [row.get(name) for row in rows] for name in ROW if name not in drop}
    table = pa.RecordBatch.from_pydict({n: pa.array(v, pa.string()) for n, v in columns.items()})
    numbers = np.arange(1, len(rows) + 1, dtype=np.int64)
    return RawBlock(table, numbers, "f.csv", lambda r: [f"raw {i}" for i in r], tuple(ROW))


def validate(*changes):
    return validate_impressions(block(*({**ROW, **c} for c in changes)), SCHEMA, SOURCE)


def test_a_good_row_has_the_types_of_the_contract():
    valid = validate({})
    assert valid.batch.to_pylist()[0] | {"event_time": None} == {
        "example_id": "x|y", "event_time": None, "weight": 2.0, "sampling_rate": 0.5,
        "position": 3, "user": "u", "price": 1.5, "price_bin": 1.5, "tags": "p q",
        "click": 1, "like": 1, "cost": 0.25,
    }  # fmt: skip
    assert valid.times.tolist() == [5]
    types = {field.name: str(field.type) for field in valid.batch.schema}
    assert types["event_time"] == "timestamp[us, tz=UTC]"
    assert (types["price"], types["click"], types["position"]) == ("float", "int8", "int32")
    assert types["cost"] == "double"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ts": "noon"}, "event_time missing or unreadable"),
        ({"ts": None}, "event_time missing or unreadable"),
        ({"click": "2"}, "label 'click': not 0 or 1"),
        ({"click": "yes"}, "label 'click': not 0 or 1"),
        ({"stars": "many"}, "label 'like': not a number"),
        ({"price": "cheap"}, "feature 'price': not a number"),
        ({"w": "-1"}, "weight: must be finite and not negative"),
        ({"w": "nan"}, "weight: must be finite and not negative"),
        ({"rate": "0"}, "sampling_rate: must be above 0 and at most 1"),
        ({"rate": "1.5"}, "sampling_rate: must be above 0 and at most 1"),
        ({"pos": "top"}, "position: not a number"),
        ({"cost": "free"}, "side column 'cost': not double"),
    ],
)
def test_impossible_values_reject_their_row_with_its_text(change, reason):
    valid = validate({}, change, {"a": "z"})
    assert [(bad.row, bad.reason, bad.raw) for bad in valid.bad] == [(2, reason, "raw 2")]
    assert valid.batch.column("example_id").to_pylist() == ["x|y", "z|y"]


def test_missing_values_that_are_allowed():
    valid = validate({"click": None, "stars": None, "price": None, "user": None, "w": None})
    row = valid.batch.to_pylist()[0]
    assert not valid.bad
    assert (row["click"], row["like"], row["price"], row["user"]) == (None, None, None, None)
    assert row["weight"] == 1.0


def test_nan_and_infinite_features_are_kept_and_counted():
    valid = validate({"price": "nan"}, {"price": "inf"}, {"price": "1e60"}, {})
    assert valid.batch.num_rows == 4
    assert valid.counts == {"nonfinite.price": 3, "nonfinite.price_bin": 3}


def test_missing_column_names_file_column_and_nearest():
    with pytest.raises(SchemaError) as error:
        validate_impressions(block(ROW, drop=("user",)), SCHEMA, SOURCE)
    assert "feature 'user' in f.csv: there is no column 'user'" in str(error.value)


def test_a_bag_from_text_needs_a_separator():
    schema = Schema("t", (Feature("tags", kind="bag"),), (Label("click"),), {"event_time": ("ts",)})
    with pytest.raises(SchemaError, match="Set `separator` or `text = true`"):
        validate_impressions(block(ROW), schema, SOURCE)


def test_row_clock_and_made_up_ids():
    schema = Schema("t", (Feature("user"),), (Label("click"),))
    raw = block(ROW, ROW)
    valid = validate_impressions(raw, schema, Source(event_time="row"))
    assert valid.times.tolist() == [0, 1]
    assert valid.batch.column("example_id").to_pylist() == ["f.csv:1", "f.csv:2"]
