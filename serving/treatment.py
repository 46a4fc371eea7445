"""The reference treatment: one way of being shown, in which items are compared by quality."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import tensorflow as tf

from ctr.encoding import Encoder
from ctr.errors import ConfigError, nearest
from ctr.schema import Feature, Schema

#: By presentation feature: a string, a number (None = missing), or the tokens of a bag.
Treatment = Mapping[str, str | float | Sequence[str] | None]


def presentation_features(schema: Schema) -> tuple[Feature, ...]:
    """Returns the features marked ``ui`` that have a column of their own."""
    return tuple(f for f in schema.features if f.ui and not f.cross)


def usual_treatment(encoder: Encoder, examples: pa.Table) -> Treatment:
    """Returns the combination of presentation features that occurs most often in examples.

    Of equally frequent ones the first to appear is taken. Empty if the schema has no such feature.
    """
    features = presentation_features(encoder.schema)
    if not features:
        return {}
    raw = encoder.raw_columns(examples, "the last examples")
    rows = zip(*(_hashable(raw[feature.name].tolist()) for feature in features), strict=True)
    values = Counter(rows).most_common(1)[0][0]
    return {
        feature.name: list(value) if isinstance(value, tuple) else value
        for feature, value in zip(features, values, strict=True)
    }


def parse_treatment(schema: Schema, assignments: Sequence[str]) -> Treatment:
    """Reads ``feature=value`` once for every presentation feature; bags take ``a,b,c``.

    Raises:
        ConfigError: a feature is unknown, has no value, or its value is no number.
    """
    known = {feature.name: feature for feature in presentation_features(schema)}
    if not known:
        raise ConfigError(
            "--reference: the schema marks no feature with `ui = true`, so there is no treatment."
        )
    found: dict[str, str | float | Sequence[str] | None] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in known:
            raise ConfigError(
                f"--reference {assignment!r}: expected FEATURE=VALUE of a presentation feature; "
                f"{nearest(name, known)}"
            )
        found[name] = _value(known[name], text, assignment)
    missing = [name for name in known if name not in found]
    if missing:
        raise ConfigError(f"--reference: give a value for {', '.join(missing)} as well.")
    return found


def shown_as(
    encoder: Encoder, columns: Mapping[str, tf.Tensor], treatment: Treatment
) -> dict[str, tf.Tensor]:
    """Returns raw tensors as if every row had been shown in ``treatment``, in the graph."""
    n = tf.shape(columns[encoder.columns[0]])[0]
    specs = encoder.signature()
    out = dict(columns)
    for name, value in treatment.items():
        spec = specs[name]
        if spec.shape.rank == 2:
            row = tf.constant([list(value) or [""]], tf.string)  # type: ignore[arg-type]
            out[name] = tf.tile(row, [n, 1])
        else:
            missing = "" if spec.dtype == tf.string else math.nan
            out[name] = tf.fill([n], tf.constant(missing if value is None else value, spec.dtype))
    return out


def _hashable(values: Sequence[object]) -> list[object]:
    """Returns values that compare equal when they mean the same: NaN and "" become None."""
    out: list[object] = []
    for value in values:
        if isinstance(value, list):
            out.append(tuple(token for token in value if token))
        else:
            lost = value == "" or (isinstance(value, float) and math.isnan(value))
            out.append(None if lost else value)
    return out


def _value(feature: Feature, text: str, assignment: str) -> str | float | Sequence[str]:
    if feature.kind == "numeric":
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"--reference {assignment!r}: expected a number.") from None
    if feature.kind == "bag" and not (feature.separator or feature.text):
        return [token for token in text.split(",") if token]
    return text
