"""The encoder's TensorFlow twin: raw tensors to rows and numbers inside an exported graph.

Every function equals its namesake in ``ctr.hashing`` or ``ctr.encoding`` bit for bit, with
standard operations only, so that a SavedModel runs wherever TensorFlow Serving does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ctr.encoding.bags import arrives_as_list
from ctr.encoding.layout import Slot
from ctr.encoding.numbers import SMALLEST_NORMAL, bin_edges
from ctr.encoding.words import between_words
from ctr.errors import SchemaError, nearest
from ctr.hashing import CROSS_FACTOR, CROSS_OFFSET, ID_MASK, MIX_FACTORS, MIX_SHIFTS, N_IDS
from ctr.schema import Feature

if TYPE_CHECKING:
    from ctr.encoding.encoder import Encoder


def ids(strings: tf.Tensor) -> tf.Tensor:
    """Returns uint64[...] ids below 2**62 of string[...]."""
    return tf.cast(tf.strings.to_hash_bucket_fast(strings, N_IDS), tf.uint64)


def mix(id64: tf.Tensor, salt: Any) -> tf.Tensor:
    """Spreads uint64[...] ids over 64 bits; ``salt`` is an integer or broadcasts as uint64."""
    out = tf.bitwise.bitwise_xor(id64, _uint64(salt))
    for shift, factor in zip(MIX_SHIFTS, (*MIX_FACTORS, None), strict=True):
        out = tf.bitwise.bitwise_xor(out, tf.bitwise.right_shift(out, _uint64(shift)))
        if factor is not None:
            out = out * _uint64(factor)
    return out


def to_rows(id64: tf.Tensor, salt: Any, n_rows: int) -> tf.Tensor:
    """Returns int32[...] rows in ``1 .. n_rows - 1`` of uint64[...] ids."""
    return tf.cast(tf.math.floormod(mix(id64, salt), _uint64(n_rows - 1)), tf.int32) + 1


def cross(*id64s: tf.Tensor) -> tf.Tensor:
    """Combines uint64[B] ids, in order, into one uint64[B] below 2**62."""
    out = id64s[0]
    for id64 in id64s[1:]:
        out = mix(id64, (out + _uint64(CROSS_OFFSET)) * _uint64(CROSS_FACTOR))
    return tf.bitwise.bitwise_and(out, _uint64(ID_MASK))


def signature(encoder: Encoder) -> dict[str, tf.TensorSpec]:
    """Returns the inputs of ``encode`` by column name."""
    return {
        feature.name: _spec(feature) for feature in encoder.schema.features if not feature.cross
    }


def encode(encoder: Encoder, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Encodes raw tensors; see ``Encoder.graph_encode``."""
    layout = encoder.layout
    missing = [name for name in encoder.columns if name not in inputs]
    if missing:
        hint = nearest(missing[0], inputs) if inputs else "there are none"
        raise SchemaError(
            f"feature {missing[0]!r}: the inputs hold no tensor of this name ({hint}). "
            "Pass one tensor per column of the schema."
        )
    parts = [_encode_plain(encoder, inputs)] if layout.plain else []
    parts += [_encode_bag(encoder, slot, inputs[slot.feature.name]) for slot in layout.bags]
    n = tf.shape(inputs[encoder.columns[0]])[0]
    rows = tf.concat(parts, axis=1) if parts else tf.zeros([n, 0], tf.int32)
    numeric = [_finite(inputs[feature.name]) for feature in layout.numeric]
    numbers = tf.stack(numeric, axis=1) if numeric else tf.zeros([n, 0], tf.float32)
    return (
        tf.ensure_shape(rows, [None, layout.n_slots]),
        tf.ensure_shape(numbers, [None, len(layout.numeric)]),
    )


def _uint64(value: Any) -> tf.Tensor:
    return value if tf.is_tensor(value) else tf.constant(value, tf.uint64)


def _spec(feature: Feature) -> tf.TensorSpec:
    if feature.kind == "numeric":
        return tf.TensorSpec([None], tf.float32, name=feature.name)
    wide = feature.kind == "bag" and arrives_as_list(feature)
    return tf.TensorSpec([None, None] if wide else [None], tf.string, name=feature.name)


def _finite(values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(values), values, tf.constant(np.nan, tf.float32))


def _bin_ids(values: tf.Tensor, feature: Feature) -> tf.Tensor:
    values = _finite(values)
    values = tf.where(tf.abs(values) < SMALLEST_NORMAL, tf.zeros_like(values), values)
    bins = tf.raw_ops.Bucketize(input=values, boundaries=bin_edges(feature).tolist())
    missing = tf.fill(tf.shape(bins), len(feature.bins) + 1)
    return tf.cast(tf.where(tf.math.is_nan(values), missing, bins), tf.uint64)


def _encode_plain(encoder: Encoder, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns int32[B, n_plain]; all columns share one hash and one mix operation."""
    features = [slot.feature for slot in encoder.layout.plain]
    id64s = {f.name: _bin_ids(inputs[f.name], f) for f in features if f.bins}
    hashed = [f.name for f in features if not (f.bins or f.cross)]
    if hashed:
        stacked = ids(tf.stack([inputs[name] for name in hashed]))
        id64s.update(zip(hashed, tf.unstack(stacked, num=len(hashed)), strict=True))
    for feature in features:
        if feature.cross:
            id64s[feature.name] = cross(*[id64s[part] for part in feature.cross])
    salts = np.array([encoder.salts[f.name] for f in features], np.uint64)
    return to_rows(tf.stack([id64s[f.name] for f in features], axis=1), salts, encoder.n_rows)


def _encode_bag(encoder: Encoder, slot: Slot, values: tf.Tensor) -> tf.Tensor:
    """Returns int32[B, max_length]."""
    feature = slot.feature
    tokens = _tokens(values, feature)
    grams = [tokens]
    for width in range(2, feature.ngrams + 1):
        grams.append(tf.strings.ngrams(tokens, width, separator=" "))
    padded = tf.concat(grams, axis=1).to_tensor("", shape=[None, feature.max_length])
    rows = to_rows(ids(padded), encoder.salts[feature.name], encoder.n_rows)
    return tf.where(tf.equal(padded, ""), tf.zeros_like(rows), rows)


def _tokens(values: tf.Tensor, feature: Feature) -> tf.RaggedTensor:
    """Returns the non-empty tokens of every row, ragged string[B, None]."""
    if feature.text:
        spaced = tf.strings.regex_replace(tf.strings.lower(values), between_words(), " ")
        values = tf.strings.split(spaced, " ")
    elif feature.separator:
        values = tf.strings.split(values, feature.separator)
    return tf.ragged.boolean_mask(values, tf.not_equal(values, ""))
