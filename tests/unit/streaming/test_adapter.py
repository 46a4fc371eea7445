import numpy as np
import pyarrow as pa
import pytest

from ctr.errors import SchemaError
from streaming.adapter import explode, reshape, split_counts
from streaming.formats.block import RawBlock


def block(**columns):
    table = pa.RecordBatch.from_pydict({n: pa.array(v, pa.string()) for n, v in columns.items()})
    rows = np.arange(10, 10 + table.num_rows)
    return RawBlock(table, rows, "f.csv", lambda r: [""] * len(r))


def test_explode_keeps_rows_with_their_items():
    out, items, places = explode(block(k=["x", "y", "z", "w"], l=["a|b", "", None, "c"]), "l", "|")
    assert out.table.column("k").to_pylist() == ["x", "x", "w"]
    assert out.rows.tolist() == [10, 10, 13]
    assert items.to_pylist() == ["a", "b", "c"]
    assert places.to_pylist() == [1, 2, 1]


def test_split_counts_leaves_out_weight_zero_and_marks_the_impossible():
    out = split_counts(block(c=["1", "0", "5", "x"], n=["3", "2", "5", "1"]), "c", "n")
    click, weight = (out.table.column(n).to_pylist() for n in ("click", "weight"))
    assert out.rows.tolist() == [10, 10, 11, 12, 13]
    assert click[:4] == [1, 0, 0, 1]
    assert weight[:4] == [1.0, 2.0, 2.0, 5.0]
    assert np.isnan(weight[4])


def test_an_adapter_that_cannot_be_loaded():
    for name in ("no.such.module:f", "streaming.adapter:nothing", "streaming.adapter"):
        with pytest.raises(SchemaError, match="cannot be loaded"):
            reshape(block(a=["1"]), name)
