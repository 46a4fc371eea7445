"""The graph that is exported: raw columns or serialised ``tf.Example`` in, probabilities out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ctr.encoding import Encoder
from ctr.learner import Learner

DEFAULT = "serving_default"
EXAMPLES = "predict"


@dataclass(frozen=True)
class ServingGraph:
    """What ``tf.saved_model.save`` takes.

    Attributes:
        module: Owns the variables that a prediction reads, and no others.
        signatures: Traced functions by signature name.
        inputs: Column name -> name of the input of ``serving_default``.
    """

    module: tf.Module
    signatures: dict[str, Any]
    inputs: dict[str, str]


def input_names(columns: Sequence[str]) -> dict[str, str]:
    """Returns a signature input for each column, the column's own name wherever it can be.

    TensorFlow takes only letters, digits and underscores, and no leading digit or underscore.

    >>> input_names(["user_id", "ad-id", "ad.id", "1st"])
    {'user_id': 'user_id', 'ad-id': 'ad_id', 'ad.id': 'ad_id_2', '1st': 'in_1st'}
    """
    names = {column: column for column in columns if _allowed(column)}
    taken = set(names)
    for column in columns:
        if column in names:
            continue
        plain = re.sub(r"[^A-Za-z0-9_]", "_", column)
        stem = name = plain if _allowed(plain) else f"in_{plain}"
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        names[column] = name
        taken.add(name)
    return {column: names[column] for column in columns}


def serving_graph(learner: Learner) -> ServingGraph:
    """Traces the signatures of a learner.

    Both return ``probabilities`` and ``logits``, calibrated: float32[B] for one label,
    float32[B, T] for several. ``serving_default`` takes one tensor per column of the schema, as
    ``Encoder.graph_encode``; ``predict`` takes ``examples``, string[B].
    """
    encoder = learner.encoder
    inputs = input_names(encoder.columns)
    specs = {
        inputs[column]: tf.TensorSpec(spec.shape, spec.dtype, name=inputs[column])
        for column, spec in encoder.signature().items()
    }

    def outputs(columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = learner.logits(*encoder.graph_encode(columns))
        if len(learner.labels) == 1:
            logits = logits[:, 0]
        return {"probabilities": tf.sigmoid(logits), "logits": logits}

    def from_columns(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return outputs({column: tensors[name] for column, name in inputs.items()})

    def from_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs(_parse(encoder, examples))

    examples = tf.TensorSpec([None], tf.string, name="examples")
    signatures = {
        DEFAULT: tf.function(from_columns, input_signature=[specs]).get_concrete_function(),
        EXAMPLES: tf.function(from_examples, input_signature=[examples]).get_concrete_function(),
    }
    module = tf.Module(name="exported")
    # The learner itself stays outside, or its optimizer slots would be exported with it.
    read = {v.ref(): v for traced in signatures.values() for v in traced.variables}
    module.read_variables = list(read.values())
    return ServingGraph(module, signatures, inputs)


def _allowed(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None


def _parse(encoder: Encoder, examples: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses serialised examples; a feature that is absent is a null."""
    wanted: dict[str, Any] = {}
    for column, spec in encoder.signature().items():
        if spec.shape.rank == 2:
            wanted[column] = tf.io.VarLenFeature(spec.dtype)
        else:
            missing = "" if spec.dtype == tf.string else np.nan
            wanted[column] = tf.io.FixedLenFeature([], spec.dtype, default_value=missing)
    parsed = tf.io.parse_example(examples, wanted)
    return {
        column: tf.sparse.to_dense(value, "") if isinstance(value, tf.SparseTensor) else value
        for column, value in parsed.items()
    }
