import numpy as np
import pyarrow as pa
import pytest

from ctr.errors import SchemaError
from streaming.casting import to_numbers, to_strings, to_times


def test_a_bad_number_spoils_only_its_own_row():
    values, bad = to_numbers(pa.array(["1.5", "x", None, " 2 ", "1e3", "nan"]), pa.float32(), "w")
    assert bad.tolist() == [False, True, False, False, False, False]
    assert values.to_pylist()[:5] == [1.5, None, None, 2.0, 1000.0]
    assert np.isnan(values[5].as_py())


def test_good_numbers_report_no_mask():
    assert to_numbers(pa.array(["1", None]), pa.float32(), "w")[1] is None


def test_plus_sign_and_overflow_of_integers():
    values, bad = to_numbers(pa.array(["+7", "99999999999", "3"]), pa.int32(), "w")
    assert values.to_pylist() == [7, None, 3]
    assert bad.tolist() == [False, True, False]


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([b"1"]), pa.array([{"a": 1}])])
def test_types_that_hold_no_number_are_schema_errors(column):
    with pytest.raises(SchemaError, match="expected numbers"):
        to_numbers(column, pa.float32(), "feature 'x' in a.parquet")


def test_floats_are_no_categories():
    with pytest.raises(SchemaError, match=r"feature 'x' in a\.parquet: expected strings"):
        to_strings(pa.array([1.5]), "feature 'x' in a.parquet")


def test_integers_dictionaries_and_large_strings_become_strings():
    assert to_strings(pa.array([7, None]), "w").to_pylist() == ["7", None]
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    assert to_strings(words, "w").to_pylist() == ["a", "b", "a"]
    assert to_strings(pa.array(["a"], pa.large_string()), "w").type == pa.string()


@pytest.mark.parametrize(
    ("values", "clock", "expected"),
    [
        (["1541030578"], "s", 1541030578_000000),
        (["1541030578.25"], "s", 1541030578_250000),
        (["1650812741436"], "ms", 1650812741436_000),
        ([1650812741436], "ms", 1650812741436_000),
        (["17"], "us", 17),
        ([17_999], "ns", 17),
        (["14102103"], "%y%m%d%H", 1413860400_000000),
        (["11/11/2019 9:05:58 AM"], "%m/%d/%Y %I:%M:%S %p", 1573463158_000000),
        (["20130606000104008"], "%Y%m%d%H%M%S%f", 1370476864_008000),
        (["2019-11-24 00:00:17.004101+00:00"], "iso", 1574553617_004101),
        (["2019-11-24T01:00:17+01:00"], "iso", 1574553617_000000),
        (["2019-11-24 00:00:17"], "iso", 1574553617_000000),
    ],
)
def test_clocks(values, clock, expected):
    times, bad = to_times(pa.array(values), clock, "w")
    assert times.tolist() == [expected]
    assert not bad.any()


@pytest.mark.parametrize("clock", ["s", "ms", "us", "iso", "%Y-%m-%d", "%Y%m%d%H%M%S%f"])
def test_an_unreadable_time_is_bad_and_its_neighbours_are_not(clock):
    good = {"iso": "2020-01-01", "%Y-%m-%d": "2020-01-01", "%Y%m%d%H%M%S%f": "20200101000000000"}
    value = good.get(clock, "1577836800")
    times, bad = to_times(pa.array([value, "soon", None, "", value]), clock, "w")
    assert bad.tolist() == [False, True, True, True, False]
    assert times[0] == times[4] > 0
    assert times[1] == 0


def test_times_far_outside_any_log_are_bad():
    _, bad = to_times(pa.array([10**17, 5]), "s", "w")
    assert bad.tolist() == [True, False]


def test_timestamp_columns_are_taken_as_they_are():
    column = pa.array([1, None], pa.timestamp("ms", "UTC"))
    times, bad = to_times(column, "s", "w")
    assert times.tolist() == [1000, 0]
    assert bad.tolist() == [False, True]
