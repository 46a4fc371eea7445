import numpy as np

from streaming.formats.jsonl import parse_jsonl


def parse(data, wanted=("a", "b")):
    return parse_jsonl(data, wanted, "f.jsonl", 10, 0)


def test_uniform_lines():
    block = parse(b'{"a": 1, "b": "x", "c": 0}\n{"b": "y", "a": 2}\n')
    assert block.table.select(["a", "b"]).to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
    assert block.rows.tolist() == [11, 12]
    assert not block.has("c")


def test_bad_lines_are_given_up_one_by_one():
    block = parse(b'{"a": 1}\nnot json\n\n[1]\n{"a": 2, "b": "q"}\n')
    assert block.table.column("a").to_pylist() == [1, 2]
    assert block.rows.tolist() == [11, 15]
    assert [(bad.row, bad.raw) for bad in block.bad] == [(12, "not json"), (14, "[1]")]
    assert block.raw(np.array([15])) == ['{"a": 2, "b": "q"}']


def test_mixed_types_become_strings():
    block = parse(b'{"a": 1, "b": "x"}\n{"a": "one", "b": null}\n{"a": true}\n')
    assert block.table.column("a").to_pylist() == ["1", "one", "true"]


def test_dates_stay_the_strings_they_are():
    block = parse(b'{"a": "2020-01-01 00:00:00", "b": ["p", "q"]}\n')
    assert block.table.column("a").to_pylist() == ["2020-01-01 00:00:00"]
    assert block.table.column("b").to_pylist() == [["p", "q"]]
