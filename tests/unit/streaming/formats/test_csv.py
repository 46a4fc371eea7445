import numpy as np
import pytest

from ctr.errors import SchemaError
from streaming.formats.csv import Dialect, header_names, parse_csv

PLAIN = Dialect(",", '"', ("",), False)


def parse(data, names=("a", "b"), wanted=None, dialect=PLAIN, first_row=0, skip=0):
    return parse_csv(data, names, wanted or names, dialect, "f.csv", first_row, 0, skip)


def test_ragged_lines_keep_the_numbers_of_the_others_right():
    block = parse(b"1,x\n2\n3,y\n4,z,9\n5,w\n", first_row=100)
    assert block.table.to_pydict() == {"a": ["1", "3", "5"], "b": ["x", "y", "w"]}
    assert block.rows.tolist() == [101, 103, 105]
    assert [(bad.row, bad.raw) for bad in block.bad] == [(102, "2"), (104, "4,z,9")]
    assert block.n_read == 5
    assert block.raw(np.array([103])) == ["3,y"]


def test_header_and_ragged_line_before_data():
    block = parse(b"a,b\n1\n2,x\n", skip=1)
    assert block.rows.tolist() == [3]
    assert [bad.row for bad in block.bad] == [2]


def test_blank_lines_are_no_rows():
    block = parse(b"\n1,x\n\n\r\n2,y\n\n")
    assert block.table.column("a").to_pylist() == ["1", "2"]
    assert block.rows.tolist() == [2, 5]
    assert block.n_read == 2


def test_broken_utf8_gives_up_its_row_only():
    block = parse(b"1,x\n2,\xff\xfe\n3,z\n")
    assert block.table.to_pydict() == {"a": ["1", "3"], "b": ["x", "z"]}
    assert [(bad.row, bad.reason, bad.raw) for bad in block.bad] == [
        (2, "not valid UTF-8", "2,\\xff\\xfe")
    ]


def test_only_a_header_or_nothing():
    assert parse(b"a,b\n", skip=1).table.num_rows == 0
    assert parse(b"").n_read == 0


def test_missing_line_end_and_windows_line_ends():
    block = parse(b"1,x\r\n2,y")
    assert block.table.column("b").to_pylist() == ["x", "y"]
    assert block.raw(np.array([1, 2])) == ["1,x", "2,y"]


def test_nulls_and_quotes():
    dialect = Dialect(",", '"', ("", "NA"), False)
    block = parse(b'NA,"p,q"\n,"say ""hi"""\n', dialect=dialect)
    assert block.table.to_pydict() == {"a": [None, None], "b": ["p,q", 'say "hi"']}


def test_quotes_are_plain_characters_when_switched_off():
    block = parse(b'"1\tx"y\n', dialect=Dialect("\t", "", ("",), False))
    assert block.table.to_pydict() == {"a": ['"1'], "b": ['x"y']}


def test_line_breaks_inside_values():
    dialect = Dialect(",", '"', ("",), True)
    block = parse(b'1,"two\nlines"\n2,y\n', dialect=dialect)
    assert block.table.column("b").to_pylist() == ["two\nlines", "y"]
    assert block.rows.tolist() == [1, 2]
    assert block.raw(np.array([2])) == ["2,y"]


def test_a_column_named_twice_is_refused_only_where_it_is_needed():
    with pytest.raises(SchemaError, match=r"\['a'\] twice"):
        parse(b"1,2\n", names=("a", "a"))
    assert parse(b"1,2,3\n", names=("a", "a", "b"), wanted=("b",)).table.num_rows == 1


def test_header_names_with_quotes():
    assert header_names(b'"a","b,c"', PLAIN) == ("a", "b,c")
