"""Raw columns to shard columns; a row with an impossible value is rejected with a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ctr.errors import SchemaError
from ctr.schema import Feature, Label, Schema
from streaming.casting import Mask, decoded, is_text, to_numbers, to_strings, to_times
from streaming.formats.block import BadRow, RawBlock
from streaming.shard_layout import TIME, is_raw_text, shard_schema
from streaming.source import Events, Source, join_column, key_columns

_LABEL_TRUE = ("1", "1.0", "true", "True", "TRUE")
_LABEL_FALSE = ("0", "0.0", "false", "False", "FALSE")
_SEPARATOR = "\x1f"


class Rejects:
    """Marks rows as bad; the first reason found for a row stands."""

    def __init__(self, n_rows: int) -> None:
        self.reasons: list[str] = []
        self.code = np.full(n_rows, -1, np.int32)

    def add(self, bad: Mask | None, reason: str) -> None:
        """Rejects the rows where ``bad`` is true."""
        if bad is not None and bad.any():
            self.code[bad & (self.code < 0)] = len(self.reasons)
            self.reasons.append(reason)

    def rows(self, block: RawBlock) -> list[BadRow]:
        """Returns the rejected rows, one per physical row, with their original text."""
        where = np.flatnonzero(self.code >= 0)
        _, first = np.unique(block.rows[where], return_index=True)
        where = where[first]
        texts = block.raw(block.rows[where]) if len(where) else []
        return [
            BadRow(int(block.rows[i]), self.reasons[self.code[i]], text)
            for i, text in zip(where, texts, strict=True)
        ]


@dataclass(frozen=True)
class Valid:
    """The usable rows of a block.

    Attributes:
        batch: Shard columns (labels that come as events are 0 and have no time yet).
        times: int64[n] event times in microseconds.
        keys: string[n], what identifies an impression, or None if nothing is joined or dropped.
        bad: Rejected rows.
        counts: Values that were odd but allowed, by kind.
    """

    batch: pa.RecordBatch
    times: NDArray[np.int64]
    keys: pa.Array | None
    bad: list[BadRow]
    counts: Counter[str]


def validate_impressions(block: RawBlock, schema: Schema, source: Source) -> Valid:
    """Casts a block to shard columns.

    Raises:
        SchemaError: a column is missing or has a type that cannot fit, whatever its values.
    """
    n_rows = block.table.num_rows
    rejects = Rejects(n_rows)
    counts: Counter[str] = Counter()
    times = _event_times(block, schema, source, rejects)
    columns: dict[str, pa.Array] = {
        "example_id": _example_ids(block, schema),
        "event_time": pa.array(times).cast(TIME),
    }
    if "query_id" in schema.columns:
        columns["query_id"] = _joined(block, schema.columns["query_id"], "query_id", "|")
    for name in ("position", "weight", "sampling_rate"):
        if name in schema.columns:
            columns[name] = _canonical_number(block, name, schema.columns[name], rejects)
    for feature in schema.features:
        if not feature.cross:
            columns[feature.name] = _feature(block, feature, rejects, counts)
    by_event = {event.label for event in source.events}
    for label in schema.labels:
        zeros = pa.array(np.zeros(n_rows, np.int8))
        columns[label.name] = zeros if label.name in by_event else _label(block, label, rejects)
    for name in by_event:
        columns[f"{name}_time"] = pa.nulls(n_rows, TIME)
    side = {name: _side(block, name, source, rejects) for name in schema.side}
    layout = shard_schema(schema, source, {name: column.type for name, column in side.items()})
    columns.update(side)
    batch = pa.RecordBatch.from_arrays([columns[n] for n in layout.names], schema=layout)
    key_names = key_columns(schema, source)
    keys = _joined(block, key_names, "dedup", _SEPARATOR) if key_names else None
    good = rejects.code < 0
    if not good.all():
        mask = pa.array(good)
        batch, times = batch.filter(mask), times[good]
        keys = keys.filter(mask) if keys is not None else None
    return Valid(batch, times, keys, rejects.rows(block), counts)


def event_columns(event: Events, schema: Schema, source: Source) -> tuple[str, str]:
    """Returns the raw columns of an event log: the impression's id and the event's time."""
    time_column = event.time_column or schema.columns["event_time"][0]
    return event.id_column or join_column(schema, source), time_column


def validate_events(
    block: RawBlock, event: Events, schema: Schema, source: Source
) -> tuple[pa.Array, NDArray[np.int64], list[BadRow]]:
    """Reads the ids and times of an event log.

    Returns:
        string[n] impression ids, int64[n] times in microseconds, and the rejected rows.
    """
    rejects = Rejects(block.table.num_rows)
    what = f"events of {event.label!r}"
    name, column = event_columns(event, schema, source)
    ids = to_strings(block.column(name, what), f"{what} in {block.file}, column {name!r}")
    rejects.add(_empty(ids), f"{what}: no impression id")
    times, bad = to_times(
        block.column(column, what),
        event.event_time or source.event_time,
        f"{what} in {block.file}, column {column!r}",
    )
    rejects.add(bad, f"{what}: time missing or unreadable")
    good = rejects.code < 0
    return ids.filter(pa.array(good)), times[good], rejects.rows(block)


def _event_times(
    block: RawBlock, schema: Schema, source: Source, rejects: Rejects
) -> NDArray[np.int64]:
    if source.event_time == "row":
        return block.rows - 1 + block.clock
    names = schema.columns["event_time"]
    where = f"event_time in {block.file}"
    if len(names) > 1:
        column = _joined(block, names, "event_time", " ")
    else:
        column = block.column(names[0], "event_time")
    times, bad = to_times(column, source.event_time, where)
    rejects.add(bad, "event_time missing or unreadable")
    return times


def _example_ids(block: RawBlock, schema: Schema) -> pa.Array:
    names = schema.columns.get("example_id", ())
    if names:
        return _joined(block, names, "example_id", "|")
    rows = pc.cast(pa.array(block.rows), pa.string())
    return pc.binary_join_element_wise(pa.scalar(f"{block.file}:"), rows, "")


def _joined(block: RawBlock, names: tuple[str, ...], what: str, separator: str) -> pa.Array:
    """Returns one column as strings, or several joined; null counts as the empty string."""
    parts = [
        pc.fill_null(to_strings(block.column(n, what), f"{what} in {block.file}, column {n!r}"), "")
        for n in names
    ]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, separator)


def _canonical_number(
    block: RawBlock, name: str, raw_names: tuple[str, ...], rejects: Rejects
) -> pa.Array:
    if len(raw_names) != 1:
        raise SchemaError(f"[columns] {name}: expected one column, received {list(raw_names)}.")
    kind = pa.int32() if name == "position" else pa.float32()
    where = f"{name} in {block.file}, column {raw_names[0]!r}"
    values, bad = to_numbers(block.column(raw_names[0], name), kind, where)
    rejects.add(bad, f"{name}: not a number")
    if name == "position":
        return values
    values = pc.fill_null(values, 1.0)
    numbers = values.to_numpy(zero_copy_only=False)
    high = 1.0 if name == "sampling_rate" else float(np.finfo(np.float32).max)
    low = float(np.finfo(np.float32).tiny) if name == "sampling_rate" else 0.0
    limits = "above 0 and at most 1" if name == "sampling_rate" else "finite and not negative"
    rejects.add(~((numbers >= low) & (numbers <= high)), f"{name}: must be {limits}")
    return values


def _feature(block: RawBlock, feature: Feature, rejects: Rejects, counts: Counter[str]) -> pa.Array:
    what = f"feature {feature.name!r}"
    name = feature.column or feature.name
    column = block.column(name, what)
    where = f"{what} in {block.file}, column {name!r}"
    if feature.kind == "numeric":
        values, bad = to_numbers(column, pa.float32(), where)
        rejects.add(bad, f"{what}: not a number")
        n_odd = pc.sum(pc.invert(pc.is_finite(values))).as_py() or 0
        if n_odd:
            counts[f"nonfinite.{feature.name}"] += n_odd
        return values
    if feature.kind == "bag" and not is_raw_text(feature):
        return _token_lists(column, where)
    return to_strings(column, where)


def _token_lists(column: pa.Array, where: str) -> pa.Array:
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list and not pa.types.is_null(kind):
        raise SchemaError(
            f"{where}: expected a list, received {kind}. Set `separator` or `text = true` if the "
            "tokens come as one string."
        )
    if is_list and pa.types.is_floating(kind.value_type):
        raise SchemaError(f"{where}: expected a list of strings or integers, received {kind}.")
    return pc.cast(column, pa.list_(pa.string()))


def _label(block: RawBlock, label: Label, rejects: Rejects) -> pa.Array:
    what = f"label {label.name!r}"
    name = label.column or label.name
    column = decoded(block.column(name, what))
    where = f"{what} in {block.file}, column {name!r}"
    if label.threshold is not None:
        numbers, bad = to_numbers(column, pa.float64(), where)
        rejects.add(bad, f"{what}: not a number")
        nan = pc.fill_null(pc.is_nan(numbers), False)
        known = pc.if_else(nan, pa.scalar(None, pa.float64()), numbers)
        return pc.cast(pc.greater_equal(known, label.threshold), pa.int8())
    if is_text(column.type):
        one = pc.is_in(column, pa.array(_LABEL_TRUE, column.type))
        zero = pc.is_in(column, pa.array(_LABEL_FALSE, column.type))
    else:
        numbers, _ = to_numbers(column, pa.float64(), where)
        one, zero = pc.equal(numbers, 1.0), pc.equal(numbers, 0.0)
    known = pc.or_kleene(one, zero)
    bad = pc.and_(pc.fill_null(pc.invert(known), False), column.is_valid())
    rejects.add(bad.to_numpy(zero_copy_only=False), f"{what}: not 0 or 1")
    empty = pa.scalar(None, pa.int8())
    return pc.if_else(column.is_valid(), pc.cast(one, pa.int8()), empty)


def _side(block: RawBlock, name: str, source: Source, rejects: Rejects) -> pa.Array:
    column = decoded(block.column(name, f"side column {name!r}"))
    if name not in source.types:
        # Text has no types of its own, and JSON's may change from block to block.
        return column if block.typed else pc.cast(column, pa.string())
    where = f"side column {name!r} in {block.file}"
    try:
        kind = pa.type_for_alias(source.types[name])
    except ValueError:
        kind = pa.null()
    if not pa.types.is_floating(kind) and not pa.types.is_integer(kind):
        raise SchemaError(
            f'{where}: [source.types] knows integer and float types ("int64", "float32", ...), '
            f"received {source.types[name]!r}."
        )
    values, bad = to_numbers(column, kind, where)
    rejects.add(bad, f"side column {name!r}: not {kind}")
    return values


def _empty(strings: pa.Array) -> Mask:
    return pc.fill_null(pc.equal(strings, ""), True).to_numpy(zero_copy_only=False)
