"""The Arrow schema of the shards that a schema asks for."""

from __future__ import annotations

import pyarrow as pa

from ctr.schema import Feature, Schema
from streaming.source import Source

TIME = pa.timestamp("us", "UTC")
_CANONICAL = {
    "query_id": pa.string(),
    "position": pa.int32(),
    "weight": pa.float32(),
    "sampling_rate": pa.float32(),
}


def is_raw_text(feature: Feature) -> bool:
    """True for a bag that stays one string in the shards, split later by the encoder."""
    return feature.kind == "bag" and (feature.text or bool(feature.separator))


def feature_type(feature: Feature) -> pa.DataType:
    """Returns the column type of a feature."""
    if feature.kind == "numeric":
        return pa.float32()
    if feature.kind == "bag" and not is_raw_text(feature):
        return pa.list_(pa.string())
    return pa.string()


def event_labels(schema: Schema, source: Source) -> tuple[str, ...]:
    """Returns the labels that arrive as events, in the source's order."""
    return tuple(event.label for event in source.events)


def shard_schema(schema: Schema, source: Source, side: dict[str, pa.DataType]) -> pa.Schema:
    """Returns the columns of a shard in their order.

    Args:
        schema: What the examples are.
        source: Says which labels arrive as events.
        side: Types of the side columns.
    """
    fields = [pa.field("example_id", pa.string()), pa.field("event_time", TIME)]
    fields += [pa.field(n, kind) for n, kind in _CANONICAL.items() if n in schema.columns]
    fields += [pa.field(f.name, feature_type(f)) for f in schema.features if not f.cross]
    fields += [pa.field(label.name, pa.int8()) for label in schema.labels]
    fields += [pa.field(f"{name}_time", TIME) for name in event_labels(schema, source)]
    fields += [pa.field(name, kind) for name, kind in side.items()]
    return pa.schema(fields)
