import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from ctr.encoding import Encoder
from ctr.errors import ConfigError, SchemaError
from ctr.hashing import cross, ids, salt64, to_rows
from ctr.schema import Feature, Label, Schema

N_ROWS = 1 << 20


def encoder(*features, n_rows=N_ROWS):
    return Encoder(Schema("s", features, (Label("click"),)), n_rows)


def batch(**columns):
    return pa.RecordBatch.from_pydict(columns)


def rows_of(name, *values):
    return to_rows(ids(pa.array(values, pa.string())), salt64(name), N_ROWS).tolist()


def test_layout_puts_plain_features_before_bags():
    tags = Feature("tags", kind="bag", max_length=3)
    price = Feature("price", kind="numeric")
    age = Feature("age", kind="numeric", bins=(1.0,))
    user, both = Feature("user"), Feature("both", cross=("user", "age"))
    layout = encoder(tags, price, age, user, both).layout
    assert layout.slots == ((age, 0, 1), (user, 1, 2), (both, 2, 3), (tags, 3, 6))
    assert layout.numeric == (price,)
    assert layout.bags == ((tags, 3, 6),)
    assert (layout.n_slots, layout.n_plain, layout.n_features) == (6, 3, 4)


def test_only_numbers():
    encoded = encoder(Feature("x", kind="numeric")).encode(batch(x=[1.5, 2.5]))
    assert encoded.ids.shape == (2, 0)
    assert encoded.numeric.tolist() == [[1.5], [2.5]]


def test_result_types():
    encoded = encoder(Feature("a"), Feature("b")).encode(batch(a=["x"] * 3, b=["y"] * 3))
    assert encoded.ids.dtype == np.int32
    assert encoded.ids.flags.c_contiguous
    assert encoded.numeric.shape == (3, 0)
    assert encoded.numeric.dtype == np.float32
    assert encoded.counts == {}


def test_salt_is_the_name_unless_shared():
    ours = encoder(Feature("a"), Feature("b"), Feature("c", salt="a"))
    (row,) = ours.encode(batch(a=["x"], b=["x"], c=["x"])).ids.tolist()
    assert row == [*rows_of("a", "x"), *rows_of("b", "x"), *rows_of("a", "x")]
    assert row[0] != row[1]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["1", "", None, "1"], pa.large_string()),
        pa.array([b"1", b"", None, b"1"]),
        pa.array(["1", "", None, "1"], pa.string_view()),
        pa.array(["1", "", None, "1"]).dictionary_encode(),
        pa.array(["x", "1", "", None, "1"]).dictionary_encode().slice(1),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1]), pa.array(["", "1", *"abcdefg"])),
    ],
    ids=lambda array: str(array.type),
)
def test_accepted_string_types(array):
    encoded = encoder(Feature("a")).encode(batch(a=array))
    assert encoded.ids[:, 0].tolist() == rows_of("a", "1", "", "", "1")


@pytest.mark.parametrize(
    ("array", "spelled"),
    [
        (pa.array([7, -1, None], pa.int64()), ["7", "-1", ""]),
        (pa.array([7, 200, None], pa.uint8()), ["7", "200", ""]),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (pa.nulls(2), ["", ""]),
        (pa.array([7, 7, None]).dictionary_encode(), ["7", "7", ""]),
    ],
    ids=str,
)
def test_ids_that_are_not_strings_are_spelled_out(array, spelled):
    encoded = encoder(Feature("a")).encode(batch(a=array))
    assert encoded.ids[:, 0].tolist() == rows_of("a", *spelled)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3], pa.int64()),
        pa.array([1.0, None, 3.0], pa.float64()),
        pa.array([1.0, None, 3.0], pa.float32()).dictionary_encode(),
        pa.array([1, None, 3], pa.uint64()),
        pa.array([1.0, None, 3.0], pa.float16()),
    ],
    ids=lambda array: str(array.type),
)
def test_accepted_numeric_types(array):
    encoded = encoder(Feature("x", kind="numeric")).encode(batch(x=array))
    np.testing.assert_array_equal(encoded.numeric[:, 0], np.array([1, np.nan, 3], np.float32))
    assert encoded.counts == {"numeric_missing.x": 1}


def test_numbers_that_are_not_finite_are_missing_and_counted():
    values = [1.0, None, float("nan"), float("inf"), -float("inf"), 1e300]
    encoded = encoder(Feature("x", kind="numeric")).encode(batch(x=values))
    assert np.isnan(encoded.numeric[:, 0]).tolist() == [False, True, True, True, True, True]
    assert encoded.counts == {"numeric_missing.x": 1, "numeric_nonfinite.x": 4}


def test_booleans_and_nulls_as_numbers():
    ours = encoder(Feature("x", kind="numeric"))
    assert ours.encode(batch(x=[True, False])).numeric.tolist() == [[1.0], [0.0]]
    assert ours.encode(batch(x=pa.nulls(2))).counts == {"numeric_missing.x": 2}


def test_bins_count_the_edges_at_or_below():
    ours = encoder(Feature("x", kind="numeric", bins=(0.0, 10.0)))
    values = [-1.0, 0.0, 9.9, 10.0, 1e9, None, float("inf")]
    expected = to_rows(np.array([0, 1, 1, 2, 2, 3, 3], np.uint64), salt64("x"), N_ROWS)
    encoded = ours.encode(batch(x=values))
    assert encoded.ids[:, 0].tolist() == expected.tolist()
    assert encoded.counts == {"numeric_missing.x": 1, "numeric_nonfinite.x": 1}


@pytest.mark.parametrize("coded", [False, True])
def test_cross_combines_the_ids_of_its_parts(coded):
    a, b = pa.array(["x", None, "x", "x"]), pa.array(["y", "y", "x", "y"])
    if coded:
        a, b = a.dictionary_encode(), b.dictionary_encode()
    ours = encoder(Feature("ab", cross=("a", "b")), Feature("a"), Feature("b"))
    encoded = ours.encode(batch(a=a, b=b))
    expected = to_rows(cross(ids(a), ids(b)), salt64("ab"), N_ROWS)
    assert encoded.ids[:, 0].tolist() == expected.tolist()
    assert len(set(encoded.ids[:3, 0])) == 3
    assert ours.columns == ("a", "b")


LISTS = [["a", "b"], [], None, ["", "c", None], ["d", "e", "f", "g", "h"]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.list_(pa.binary()),
    ],
    ids=str,
)
@pytest.mark.parametrize("start", [0, 1])
def test_bag_of_lists(kind, start):
    ours = encoder(Feature("a"), Feature("t", kind="bag", max_length=3))
    encoded = ours.encode(batch(a=["x"] * 5, t=pa.array(LISTS, kind)).slice(start))
    rows = dict(zip("abcdef", rows_of("t", *"abcdef"), strict=True))
    expected = [
        [rows["a"], rows["b"], 0],
        [0, 0, 0],
        [0, 0, 0],
        [rows["c"], 0, 0],
        [rows["d"], rows["e"], rows["f"]],
    ]
    assert encoded.ids[:, 1:].tolist() == expected[start:]
    assert encoded.counts == {"bag_truncated.t": 2}


def test_other_lists():
    ours = encoder(Feature("t", kind="bag", max_length=2))
    for array in (
        pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        pa.array([[1, 2], None], pa.list_(pa.int64())),
    ):
        assert ours.encode(batch(t=array)).ids.tolist() == [rows_of("t", "1", "2"), [0, 0]]
    assert ours.encode(batch(t=pa.nulls(1))).ids.tolist() == [[0, 0]]
    assert ours.encode(batch(t=pa.array([[]]))).ids.tolist() == [[0, 0]]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_bag_with_separator(kind):
    ours = encoder(Feature("t", kind="bag", separator="|", max_length=3))
    encoded = ours.encode(batch(t=pa.array(["A|b", "", None, "||c|"], kind)))
    upper, b, c = rows_of("t", "A", "b", "c")
    assert encoded.ids.tolist() == [[upper, b, 0], [0, 0, 0], [0, 0, 0], [c, 0, 0]]


def test_text_is_lower_cased_words_then_ngrams():
    ours = encoder(Feature("t", kind="bag", text=True, ngrams=3, max_length=6))
    texts = ["Hello, WORLD!\n(again)", "Éa-b_2", "one two three four", None]
    encoded = ours.encode(batch(t=texts))
    hello = rows_of(
        "t", "hello", "world", "again", "hello world", "world again", "hello world again"
    )
    assert encoded.ids[0].tolist() == hello
    # Only ASCII letters change case.
    assert encoded.ids[1].tolist() == rows_of("t", "Éa", "b", "2", "Éa b", "b 2", "Éa b 2")
    assert encoded.ids[2].tolist() == rows_of(
        "t", "one", "two", "three", "four", "one two", "two three"
    )
    assert encoded.ids[3].tolist() == [0] * 6
    assert encoded.counts == {"bag_truncated.t": 3}


def test_table_of_chunks_with_their_own_dictionaries():
    table = pa.table(
        {
            "a": pa.chunked_array(
                [pa.array(part).dictionary_encode() for part in (["x"], ["y", "x"])]
            )
        }
    )
    ours = encoder(Feature("a"))
    assert ours.encode(table).ids[:, 0].tolist() == rows_of("a", "x", "y", "x")
    assert ours.raw_columns(table)["a"].tolist() == ["x", "y", "x"]


@pytest.mark.parametrize("make", [pa.table, pa.RecordBatch.from_pydict])
def test_no_rows(make):
    ours = encoder(
        Feature("a"), Feature("t", kind="bag", max_length=2), Feature("x", kind="numeric")
    )
    empty = make(
        {
            "a": pa.array([], pa.string()),
            "t": pa.array([], pa.list_(pa.string())),
            "x": pa.array([]),
        }
    )
    encoded = ours.encode(empty)
    assert (encoded.ids.shape, encoded.numeric.shape) == ((0, 3), (0, 1))
    assert {name: array.shape for name, array in ours.raw_columns(empty).items()} == {
        "a": (0,),
        "t": (0, 1),
        "x": (0,),
    }
    with pytest.raises(SchemaError, match="feature 'a'"):
        ours.encode(pa.table({"b": pa.array([], pa.string())}))


@pytest.mark.parametrize(
    ("feature", "array", "message"),
    [
        (
            Feature("f"),
            [[1.0]],
            "categorical feature 'f' in part-1: expected string, integer or boolean, received "
            'list<item: double>. Declare kind = "bag", or fix the writer.',
        ),
        (Feature("f"), [1.0], 'received double. Declare kind = "numeric"'),
        (Feature("f"), pa.array([1.0]).dictionary_encode(), "received double."),
        (Feature("f", kind="numeric"), ["1"], "expected integer or floating point, received str"),
        (Feature("f", kind="numeric", bins=(1.0,)), ["1"], "numeric feature 'f' in part-1"),
        (Feature("f", kind="bag"), ["a b"], "received string. Write a list, or set separator"),
        (
            Feature("f", kind="bag"),
            [[1.0]],
            "received list<item: double>. Write the tokens as strings.",
        ),
        (Feature("f", kind="bag", text=True), [["a"]], "drop separator and text for a bag of"),
        (Feature("f", kind="bag", separator=","), [["a"]], "Write one string per row"),
        (Feature("f", kind="bag", text=True), [b"\xff"], "Write the text as UTF-8."),
    ],
)
def test_columns_of_a_wrong_type(feature, array, message):
    with pytest.raises(SchemaError) as error:
        encoder(feature).encode(batch(f=array), source="part-1")
    assert message in str(error.value)


def test_missing_and_doubled_columns():
    ours = encoder(Feature("user_id"))
    with pytest.raises(SchemaError, match=r"'user_id' in the batch: there is no column .*'userid'"):
        ours.encode(batch(userid=["a"]))
    doubled = pa.RecordBatch.from_arrays([pa.array(["a"])] * 2, names=["user_id"] * 2)
    with pytest.raises(SchemaError, match="more than one column of this name"):
        ours.encode(doubled)


@pytest.mark.parametrize("n_rows", [1, 1 << 31])
def test_table_sizes_out_of_range(n_rows):
    with pytest.raises(ConfigError, match="needs 2 to 2,147,483,647 rows, received"):
        encoder(Feature("a"), n_rows=n_rows)


def test_rows_are_the_same_in_every_process():
    code = (
        "import sys, pyarrow as pa\n"
        "from ctr.encoding import Encoder\n"
        "from ctr.schema import Feature, Label, Schema\n"
        "encoder = Encoder(Schema('s', (Feature('a'),), (Label('click'),)), 1 << 20)\n"
        "batch = pa.RecordBatch.from_pydict({'a': ['x', 'y']})\n"
        "print(*encoder.encode(batch).ids[:, 0], 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*map(str, rows_of("a", "x", "y")), "False"]
