"""The graph that is exported: raw columns or serialised ``tf.Example`` in, probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ctr.api import Forward
from ctr.encoding import Encoder
from ctr.learner import Learner
from serving.treatment import Treatment, shown_as

DEFAULT = "serving_default"
EXAMPLES = "predict"
QUALITY = "predict_with_quality"
#: Extras of a factorized model that are returned beside its quality.
_VECTORS = ("quality", "presentation")


@dataclass(frozen=True)
class ServingGraph:
    """What ``tf.saved_model.save`` takes.

    Attributes:
        module: Owns the variables that a prediction reads, and no others.
        signatures: Traced functions by signature name.
    """

    module: tf.Module
    signatures: dict[str, Any]

    def describe(self) -> dict[str, dict[str, dict[str, str]]]:
        """Returns the types of all inputs and outputs, such as ``string[B]``, for people."""
        return {
            name: {
                "inputs": _types(traced.structured_input_signature[0][0]),
                "outputs": _types(traced.structured_outputs),
            }
            for name, traced in self.signatures.items()
        }


def serving_graph(learner: Learner, reference: Treatment | None = None) -> ServingGraph:
    """Traces the signatures of a learner.

    All return ``probabilities`` and ``logits``, calibrated: float32[B] for one label,
    float32[B, T] for several. ``serving_default`` takes one tensor per column of the schema, as
    ``Encoder.graph_encode``; ``predict`` takes ``examples``, string[B].

    With a reference treatment there is also ``predict_with_quality``, which takes the same columns
    and returns besides ``quality_probabilities`` and ``quality_logits``: what the row would get if
    it were shown in the reference treatment. A factorized model adds its vectors ``quality`` and
    ``presentation``, float32[B, 1 + D] for one label, float32[B, T, 1 + D] for several.

    Args:
        learner: The learner.
        reference: A value for every presentation feature; empty or None for no such signature.
    """
    encoder = learner.encoder
    specs = encoder.signature()

    def forward(columns: dict[str, tf.Tensor]) -> Forward:
        return learner.forward(*encoder.graph_encode(columns))

    def by_label(values: tf.Tensor) -> tf.Tensor:
        return values[:, 0] if len(learner.labels) == 1 else values

    def outputs(columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = by_label(forward(columns).logits)
        return {"probabilities": tf.sigmoid(logits), "logits": logits}

    def from_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs(_parse(encoder, examples))

    def with_quality(columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        shown = forward(columns)
        logits = by_label(shown.logits)
        quality = by_label(forward(shown_as(encoder, columns, reference or {})).logits)
        vectors = {name: by_label(shown.aux[name]) for name in _VECTORS if name in shown.aux}
        return {
            "probabilities": tf.sigmoid(logits),
            "logits": logits,
            "quality_probabilities": tf.sigmoid(quality),
            "quality_logits": quality,
            **vectors,
        }

    examples = tf.TensorSpec([None], tf.string, name="examples")
    signatures = {
        DEFAULT: tf.function(outputs, input_signature=[specs]).get_concrete_function(),
        EXAMPLES: tf.function(from_examples, input_signature=[examples]).get_concrete_function(),
    }
    if reference:
        traced = tf.function(with_quality, input_signature=[specs]).get_concrete_function()
        signatures[QUALITY] = traced
    module = tf.Module(name="exported")
    # The learner itself stays outside, or its optimizer slots would be exported with it.
    read = {v.ref() for traced in signatures.values() for v in traced.variables}
    module.read_variables = [v for v in learner.variables if v.ref() in read]
    return ServingGraph(module, signatures)


def _types(specs: Any) -> dict[str, str]:
    """Spells out tensor types by name; open dimensions are called B, then L."""
    named = specs if isinstance(specs, dict) else {specs.name: specs}
    return {
        name: f"{spec.dtype.name}[{', '.join(_dimensions(spec.shape))}]"
        for name, spec in named.items()
    }


def _dimensions(shape: tf.TensorShape) -> list[str]:
    return ["BL"[axis] if size is None else str(size) for axis, size in enumerate(shape)]


def _parse(encoder: Encoder, examples: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses serialised examples; a feature that is absent is a null."""
    wanted: dict[str, Any] = {}
    for column, spec in encoder.signature().items():
        if spec.shape.rank == 2:
            wanted[column] = tf.io.RaggedFeature(spec.dtype)
        else:
            missing = "" if spec.dtype == tf.string else np.nan
            wanted[column] = tf.io.FixedLenFeature([], spec.dtype, default_value=missing)
    parsed = tf.io.parse_example(examples, wanted)
    return {
        column: _padded(value, encoder.schema.feature(column).max_length)
        if isinstance(value, tf.RaggedTensor)
        else value
        for column, value in parsed.items()
    }


def _padded(tokens: tf.RaggedTensor, length: int) -> tf.Tensor:
    """Returns string[B, L] of the tokens that count.

    Further ones would be cut later anyway; here they would widen every row of the batch.
    """
    kept = tf.ragged.boolean_mask(tokens, tf.not_equal(tokens, ""))
    return kept[:, :length].to_tensor("")
