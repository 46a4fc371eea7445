import numpy as np
import pyarrow as pa
import pytest

from ctr.metrics.slices import SliceValues


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["b", None, "a", "b"]),
        pa.array(["b", None, "a", "b"]).dictionary_encode(),
        pa.chunked_array([["b", None], ["a", "b"]]),
        np.array(["b", None, "a", "b"], dtype=object),
        (np.array([2, -1, 0, 2], dtype=np.int32), ["a", "never", "b"]),
    ],
)
def test_every_kind_of_column_gets_numbers_by_first_appearance(column):
    values = SliceValues(10)
    assert values.encode(column).tolist() == [0, 1, 2, 0]
    assert values.names == ("b", "(missing)", "a")


def test_integers_and_sliced_dictionaries():
    values = SliceValues(10)
    assert values.encode(np.array([7, 3, 7], dtype=np.int32)).tolist() == [0, 1, 0]
    tail = pa.array(["x", "7", "3"]).dictionary_encode()[1:]
    assert values.encode(tail).tolist() == [0, 1]
    assert values.names == ("7", "3")


def test_values_beyond_the_limit_are_pooled_and_stay_pooled():
    values = SliceValues(2)
    assert values.encode(np.array(["c", "a", "b", "c"])).tolist() == [0, 1, 2, 0]
    assert values.encode(np.array(["b", "d", "a"])).tolist() == [2, 2, 1]
    assert values.names == ("c", "a")


def test_the_same_dictionary_again_finds_values_not_seen_before():
    values, names = SliceValues(5), ["p", "q", "r"]
    assert values.encode((np.array([2, 2]), names)).tolist() == [0, 0]
    assert values.encode((np.array([0, 2, 1]), names)).tolist() == [1, 0, 2]
    assert values.names == ("r", "p", "q")


def test_an_empty_column():
    assert SliceValues(5).encode(pa.array([], pa.string())).tolist() == []
