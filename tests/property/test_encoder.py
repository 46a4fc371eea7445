"""The Arrow encoder against its TensorFlow twin, for whole schemas."""

import numpy as np
import pyarrow as pa
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.encoding import Encoder
from ctr.schema import Feature, Label, Schema

SCHEMA = Schema(
    name="everything",
    features=(
        Feature("user"),
        Feature("words", kind="bag", text=True, ngrams=3, max_length=7),
        Feature("price", kind="numeric"),
        Feature("age", kind="numeric", bins=(-1.5, 0.1, 18.0)),
        Feature("user_age", cross=("user", "age")),
        Feature("tags", kind="bag", max_length=3),
        Feature("item", salt="things"),
        Feature("age_user_item", cross=("age", "user", "item")),
        Feature("path", kind="bag", separator="::", ngrams=2, max_length=4, salt="things"),
        Feature("length", kind="numeric", log=True),
    ),
    labels=(Label("click"),),
)

words = st.sampled_from(
    ["", "a", "b", "Ab", "1x", "naïve", "ÉCOLE", "東京", "-", "::", ":", "\x00"]
)
texts = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.lists(words, max_size=9).map(" ".join),
    st.lists(words, max_size=9).map("::".join),
)
floats = st.one_of(
    st.none(),
    st.floats(width=32),
    st.sampled_from([-1.5, 0.1, 18.0, 0.0, -0.0, 1e-45, -1e-45, float("nan"), float("inf")]),
)
rows = st.fixed_dictionaries(
    {
        "user": st.one_of(st.none(), st.text(max_size=20)),
        "words": texts,
        "price": floats,
        "age": floats,
        "tags": st.one_of(st.none(), st.lists(st.one_of(st.none(), words), max_size=6)),
        "item": st.one_of(st.none(), st.text(max_size=3)),
        "path": texts,
        "length": floats,
    }
)
ARROW = pa.schema(
    [
        ("user", pa.string()),
        ("words", pa.string()),
        ("price", pa.float32()),
        ("age", pa.float32()),
        ("tags", pa.list_(pa.string())),
        ("item", pa.string()),
        ("path", pa.string()),
        ("length", pa.float32()),
    ]
)


def assert_twins_agree(encoder, batch):
    encoded = encoder.encode(batch)
    raw = {name: tf.constant(values) for name, values in encoder.raw_columns(batch).items()}
    for name, spec in encoder.signature().items():
        assert spec.is_compatible_with(raw[name])
    ids, numeric = encoder.graph_encode(raw)
    assert (ids.numpy() == encoded.ids).all()
    assert numeric.numpy().tobytes() == encoded.numeric.tobytes()
    return encoded


@settings(deadline=None, max_examples=150)
@given(st.lists(rows, min_size=1, max_size=8), st.integers(2, 2**31 - 1))
def test_both_encoders_agree(data, n_rows):
    batch = pa.RecordBatch.from_pylist(data, schema=ARROW)
    assert_twins_agree(Encoder(SCHEMA, n_rows), batch)


@settings(deadline=None, max_examples=60)
@given(st.lists(rows, min_size=2, max_size=8), st.data())
def test_layout_of_the_arrow_data_does_not_matter(data, draw):
    batch = pa.RecordBatch.from_pylist(data, schema=ARROW)
    encoder = Encoder(SCHEMA, 1 << 20)
    whole = encoder.encode(batch)
    cut = draw.draw(st.integers(0, len(data)))
    coded = [
        array.dictionary_encode() if pa.types.is_string(array.type) else array
        for array in batch.columns
    ]
    coded_batch = pa.RecordBatch.from_arrays(coded, names=batch.schema.names)
    parts = pa.Table.from_batches([coded_batch.slice(0, cut), coded_batch.slice(cut)])
    again = encoder.encode(parts)
    assert (again.ids == whole.ids).all()
    assert again.numeric.tobytes() == whole.numeric.tobytes()
    assert again.counts == whole.counts
    raw, raw_again = encoder.raw_columns(batch), encoder.raw_columns(parts)
    for name in encoder.columns:
        np.testing.assert_array_equal(raw[name], raw_again[name])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
    st.lists(st.floats(width=32), min_size=1, max_size=8),
)
def test_bins_agree_for_all_floats(bins, values):
    feature = Feature("x", kind="numeric", bins=tuple(sorted(set(bins))))
    encoder = Encoder(Schema("bins", (feature,), (Label("y"),)), 1 << 30)
    values = [*values, *feature.bins]
    assert_twins_agree(encoder, pa.RecordBatch.from_pydict({"x": pa.array(values, pa.float32())}))
