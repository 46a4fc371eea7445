import unicodedata

import pyarrow as pa
import pytest
import tensorflow as tf

from ctr.encoding import Encoder
from ctr.encoding.words import word_ranges
from ctr.errors import SchemaError
from ctr.schema import Feature, Label, Schema

ENCODER = Encoder(
    Schema(
        "s",
        (
            Feature("user"),
            Feature("age", kind="numeric", bins=(18.0, 65.0)),
            Feature("both", cross=("age", "user")),
            Feature("price", kind="numeric"),
            Feature("tags", kind="bag", max_length=2),
            Feature("title", kind="bag", text=True, ngrams=2, max_length=4),
            Feature("path", kind="bag", separator="/", max_length=3),
        ),
        (Label("click"),),
    ),
    1 << 16,
)
BATCH = pa.RecordBatch.from_pydict(
    {
        "user": ["ann", None, "bob"],
        "age": [17.0, 18.0, None],
        "price": [1.0, None, 2.5],
        "tags": [["a", "b", "c"], None, ["", "d"]],
        "title": ["A red hat", "", "Hats!"],
        "path": ["x//y", None, "z/x/y/w"],
    }
)


class Serving(tf.Module):
    """An encoder as an exported model holds it."""

    @tf.function(input_signature=[ENCODER.signature()])
    def __call__(self, columns):
        ids, numeric = ENCODER.graph_encode(columns)
        return {"ids": ids, "numeric": numeric}


def test_signature_names_every_column_but_no_cross():
    signature = ENCODER.signature()
    assert tuple(signature) == ENCODER.columns
    assert {name: (len(spec.shape), spec.dtype) for name, spec in signature.items()} == {
        "user": (1, tf.string),
        "age": (1, tf.float32),
        "price": (1, tf.float32),
        "tags": (2, tf.string),
        "title": (1, tf.string),
        "path": (1, tf.string),
    }


def test_shapes_are_static_but_for_the_batch():
    outputs = Serving().__call__.get_concrete_function().structured_outputs
    assert outputs["ids"].shape.as_list() == [None, 12]
    assert outputs["numeric"].shape.as_list() == [None, 1]


def test_a_saved_model_encodes_as_the_trainer_does(tmp_path):
    tf.saved_model.save(Serving(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for start, length in ((0, 3), (1, 1), (0, 0)):
        part = BATCH.slice(start, length)
        raw = {
            name: tf.constant(values, ENCODER.signature()[name].dtype)
            for name, values in ENCODER.raw_columns(part).items()
        }
        encoded = ENCODER.encode(part)
        outputs = loaded(raw)
        assert (outputs["ids"].numpy() == encoded.ids).all()
        assert outputs["numeric"].numpy().tobytes() == encoded.numeric.tobytes()


def test_any_padding_of_a_bag_gives_the_same_rows():
    raw = {name: tf.constant(values) for name, values in ENCODER.raw_columns(BATCH).items()}
    expected = ENCODER.graph_encode(raw)[0].numpy()
    raw["tags"] = tf.constant([["", "a", "", "b", "c", ""], [""] * 6, ["d", "", "", "", "", ""]])
    assert (ENCODER.graph_encode(raw)[0].numpy() == expected).all()


def test_schemas_of_one_kind():
    for feature, column in (
        (Feature("f", kind="numeric"), [1.0]),
        (Feature("f"), ["a"]),
        (Feature("f", kind="bag", max_length=2), [["a"]]),
    ):
        encoder = Encoder(Schema("s", (feature,), (Label("click"),)), 100)
        batch = pa.RecordBatch.from_pydict({"f": column})
        ids, numeric = encoder.graph_encode(
            {name: tf.constant(values) for name, values in encoder.raw_columns(batch).items()}
        )
        encoded = encoder.encode(batch)
        assert ids.numpy().tolist() == encoded.ids.tolist()
        assert numeric.numpy().tolist() == encoded.numeric.tolist()


def test_a_missing_tensor_is_named():
    with pytest.raises(SchemaError, match=r"feature 'user': the inputs hold no tensor .*'users'"):
        ENCODER.graph_encode({"users": tf.constant(["a"])})


def test_both_sides_split_all_texts_at_the_same_code_points():
    points = {p + d for pair in word_ranges() for p in pair for d in (-1, 0, 1)}
    # Letters since Unicode 15.1, on which the tables of Arrow and TensorFlow disagree.
    points |= set(range(0x2EBF0, 0x2EE5E))
    characters = [chr(p) for p in sorted(points) if not 0xD800 <= p <= 0xDFFF]
    feature = Feature("f", kind="bag", text=True, max_length=2)
    encoder = Encoder(Schema("s", (feature,), (Label("click"),)), 1 << 30)
    batch = pa.RecordBatch.from_pydict({"f": [f"a{c}b" for c in characters]})
    encoded = encoder.encode(batch).ids
    raw = {name: tf.constant(values) for name, values in encoder.raw_columns(batch).items()}
    assert (encoder.graph_encode(raw)[0].numpy() == encoded).all()
    one_word = [unicodedata.category(c)[0] in "LN" for c in characters]
    assert (encoded[:, 1] == 0).tolist() == one_word
