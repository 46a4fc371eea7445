from __future__ import annotations

import pyarrow as pa
import pytest

from ctr.encoding.bags import tokens
from ctr.schema import Feature


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_text_of_a_slice_has_the_words_of_its_own_rows(kind: pa.DataType) -> None:
    rows = pa.array([f"Red Shoes {i}" for i in range(9)], kind)
    text = Feature("title", kind="bag", text=True)
    found = tokens(rows.slice(5, 2), text, "the test")
    assert found.values.to_pylist() == ["red", "shoes", "5", "red", "shoes", "6"]
    assert found.offsets.tolist() == [0, 3, 6]
