import numpy as np
import pyarrow as pa
import pytest

from ctr.errors import SchemaError
from streaming.formats.block import RawBlock
from streaming.inputs import find_lookup
from streaming.lookup import SideTable
from streaming.source import Lookup, Source

LOOKUP = Lookup(input=("films*.csv",), key="id", columns=("title",), key_in_log="film")


def block(**columns):
    table = pa.RecordBatch.from_pydict({n: pa.array(v) for n, v in columns.items()})
    return RawBlock(table, np.arange(table.num_rows), "log.csv", lambda r: [""] * len(r))


def side_table(folder, text):
    (folder / "films.csv").write_text(text)
    files = find_lookup(LOOKUP, [str(folder / "log.csv")], Source())
    return SideTable(LOOKUP, tuple(files), Source())


def test_columns_are_joined_by_key_the_first_entry_counts(tmp_path):
    table = side_table(tmp_path, "id,title\n1,One\n2,Two\n1,Other\n")
    joined = table.join(block(film=[2, 1, 9, None])).table
    assert joined.column("title").to_pylist() == ["Two", "One", None, None]


def test_columns_of_the_log_are_left_alone(tmp_path):
    table = side_table(tmp_path, "id,title\n1,One\n")
    raw = block(film=[1], title=["own"])
    assert table.join(raw) is raw


def test_no_table_gives_null():
    joined = SideTable(LOOKUP, (), Source()).join(block(film=[1, 2]))
    assert joined.table.column("title").to_pylist() == [None, None]


def test_a_table_without_the_column(tmp_path):
    table = side_table(tmp_path, "id,titel\n1,One\n")
    with pytest.raises(SchemaError, match="no column 'title': did you mean 'titel'"):
        table.join(block(film=[1]))
