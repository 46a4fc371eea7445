"""The NumPy hash against the TensorFlow operation whose values it promises."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.encoding import graph
from ctr.hashing import N_IDS, cross, ids, mix, to_rows

texts = st.one_of(st.none(), st.text(max_size=20), st.text(max_size=300))
binaries = st.one_of(st.none(), st.binary(max_size=300))
id64s = st.lists(st.integers(0, N_IDS - 1), min_size=1, max_size=20)


def tensorflow_ids(values):
    values = [b"" if value is None else value for value in values]
    if not values:
        return []
    return tf.strings.to_hash_bucket_fast(tf.constant(values, tf.string), N_IDS).numpy().tolist()


@settings(deadline=None, max_examples=200)
@given(st.lists(texts, max_size=40), st.sampled_from([pa.string(), pa.large_string()]))
def test_texts(values, kind):
    assert ids(pa.array(values, kind)).tolist() == tensorflow_ids(values)


@settings(deadline=None, max_examples=200)
@given(st.lists(binaries, max_size=40), st.sampled_from([pa.binary(), pa.large_binary()]))
def test_arbitrary_bytes(values, kind):
    assert ids(pa.array(values, kind)).tolist() == tensorflow_ids(values)


@settings(deadline=None)
@given(st.lists(texts, max_size=40), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_slices_and_dictionaries(values, start, length, coded):
    array = pa.array(values, pa.string())
    if coded:
        array = array.dictionary_encode()
    expected = tensorflow_ids(values[start : start + length])
    assert ids(array.slice(min(start, len(values)), length)).tolist() == expected


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 20), st.randoms(use_true_random=False))
def test_equal_lengths_take_the_even_path(length, n, random):
    values = [random.randbytes(length) for _ in range(n)]
    assert ids(pa.array(values, pa.binary())).tolist() == tensorflow_ids(values)


@pytest.mark.parametrize("extra", [0, 1])
def test_every_length_with_and_without_neighbours_of_other_lengths(extra):
    rng = np.random.default_rng(0)
    for length in range(301):
        values = [rng.bytes(length + i * extra) for i in range(3)]
        assert ids(pa.array(values, pa.binary())).tolist() == tensorflow_ids(values), length


@settings(deadline=None)
@given(id64s, st.integers(0, 2**64 - 1), st.integers(2, 2**31 - 1))
def test_mix_and_rows_in_the_graph(values, salt, n_rows):
    array = np.array(values, np.uint64)
    tensor = tf.constant(values, tf.uint64)
    assert (graph.mix(tensor, salt).numpy() == mix(array, salt)).all()
    rows = to_rows(array, salt, n_rows)
    assert (graph.to_rows(tensor, salt, n_rows).numpy() == rows).all()
    assert rows.min() >= 1
    assert rows.max() < n_rows


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, N_IDS - 1), min_size=3, max_size=3), min_size=1))
def test_cross_in_the_graph(rows):
    columns = np.array(rows, np.uint64).T
    tensors = [tf.constant(column) for column in columns]
    assert (graph.cross(*tensors).numpy() == cross(*columns)).all()
