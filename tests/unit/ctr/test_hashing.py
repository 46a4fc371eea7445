import numpy as np
import pyarrow as pa
import pytest

from ctr.farmhash import EMPTY
from ctr.hashing import N_IDS, cross, fingerprint64, ids, mix, salt64, to_rows

# Values printed by tf.strings.to_hash_bucket_fast(s, 2**62), kept so that a change of either side
# shows even where TensorFlow is not installed.
KNOWN_IDS = {
    "": 1936946117179621455,
    "a": 3694432073954588131,
    "abcd": 1897425971756105985,
    "68fd1e64": 3308603429550082694,
    "a string of 28 bytes exactly": 4603415276417808683,
    "naïve café — 東京": 3750804863904338308,
    "x" * 64: 2304502108871267256,
    "x" * 65: 323337772074164025,
    "xy" * 100: 4368606402300340748,
}


def test_known_ids():
    assert dict(zip(KNOWN_IDS, ids(pa.array(list(KNOWN_IDS))).tolist(), strict=True)) == KNOWN_IDS


def test_null_hashes_like_empty_even_over_stale_bytes():
    offsets = pa.py_buffer(np.array([0, 3, 6], np.int32))
    array = pa.StringArray.from_buffers(
        2, offsets, pa.py_buffer(b"abcdef"), pa.py_buffer(b"\x01"), null_count=1
    )
    assert array.to_pylist() == ["abc", None]
    assert fingerprint64(array).tolist() == [fingerprint64(pa.array(["abc"]))[0], EMPTY]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_empty_and_all_null_arrays(kind):
    assert fingerprint64(pa.array([], kind)).tolist() == []
    assert fingerprint64(pa.array([None, None], kind)).tolist() == [EMPTY, EMPTY]
    coded = pa.array([None, None], pa.dictionary(pa.int8(), kind))
    assert fingerprint64(coded).tolist() == [EMPTY, EMPTY]


def test_null_among_the_dictionary_entries():
    coded = pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), pa.array(["a", None]))
    plain = fingerprint64(pa.array([None, "a", None]))
    assert (fingerprint64(coded) == plain).all()


def test_full_int8_dictionary_with_nulls():
    words = [str(i) for i in range(127)]
    coded = pa.array([*words, None]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
    assert (fingerprint64(coded) == fingerprint64(pa.array([*words, None]))).all()


def test_rows_of_many_blocks_do_not_depend_on_their_neighbours():
    words = [f"w{i}" * (i % 40) for i in range(20_000)]
    array = pa.array(words)
    whole = fingerprint64(array)
    assert (whole[12_345:12_400] == fingerprint64(array.slice(12_345, 55))).all()


def test_other_types_are_refused():
    with pytest.raises(TypeError, match=r"cannot hash list<item: double>"):
        fingerprint64(pa.array([[1.0]]))


def test_every_input_bit_moves_every_output_bit_half_the_time():
    rng = np.random.default_rng(0)
    sample = rng.integers(0, N_IDS, 4000).astype(np.uint64)
    salt = salt64("feature")
    base = mix(sample, salt)
    for bit in range(62):
        changed = base ^ mix(sample ^ np.uint64(1 << bit), salt)
        share = np.unpackbits(changed.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        assert np.abs(share - 0.5).max() < 0.05, bit


def test_salts_separate_small_ids():
    small = np.arange(100, dtype=np.uint64)
    rows = np.concatenate([to_rows(small, salt64(f"f{i}"), 1 << 30) for i in range(20)])
    assert len(np.unique(rows)) == len(rows)


def test_rows_fill_the_table_evenly_and_skip_row_0():
    n_rows = 101
    rows = to_rows(np.arange(100_000, dtype=np.uint64), salt64("f"), n_rows)
    counts = np.bincount(rows, minlength=n_rows)
    assert rows.dtype == np.int32
    assert counts[0] == 0
    assert len(counts) == n_rows
    # 1,000 expected per row, standard deviation 31.5.
    assert np.abs(counts[1:] - 1000).max() < 160


@pytest.mark.parametrize("n_rows", [2, 3, 1 << 20, (1 << 31) - 1])
def test_rows_are_a_remainder(n_rows):
    id64 = np.random.default_rng(1).integers(0, N_IDS, 20_000).astype(np.uint64)
    expected = [1 + m % (n_rows - 1) for m in mix(id64, 77).tolist()]
    assert to_rows(id64, 77, n_rows).tolist() == expected


def test_cross_depends_on_the_order_and_on_every_part():
    a, b, c = (np.random.default_rng(i).integers(0, N_IDS, 50).astype(np.uint64) for i in range(3))
    combinations = [cross(a, b), cross(b, a), cross(a, c), cross(a, b, c), cross(b, a, c)]
    assert len(np.unique(np.concatenate(combinations))) == 250
    assert max(int(x.max()) for x in combinations) < N_IDS


def test_cross_of_small_ids_has_no_collisions():
    a, b = (x.ravel().astype(np.uint64) for x in np.meshgrid(np.arange(300), np.arange(300)))
    assert len(np.unique(cross(a, b))) == 90_000
