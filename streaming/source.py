"""Where the raw rows are and how to read them: the ``[source]`` table of a ``schema.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctr.errors import SchemaError, nearest
from ctr.fields import from_table, read_toml
from ctr.schema import Schema, schema_from_dict

FORMATS = ("csv", "tsv", "jsonl", "parquet")
#: Values of ``event_time`` that are not a ``strptime`` format.
CLOCKS = ("s", "ms", "us", "ns", "iso", "row")


@dataclass(frozen=True)
class Impressions:
    """The log of what was shown, when clicks or conversions come as logs of their own.

    Attributes:
        input: File name patterns of the impression log.
        id_column: Raw column that events refer to; the schema's ``columns.example_id`` if empty.
    """

    input: tuple[str, ...] = ()
    id_column: str = ""


@dataclass(frozen=True)
class Events:
    """A log of one kind of event that turns a label of an earlier impression into 1.

    Attributes:
        label: The schema's label that these events set.
        input: File name patterns of this log.
        window_s: Longest time from impression to event, in seconds, that still counts.
        id_column: Raw column with the impression's id; that of the impressions if empty.
        time_column: Raw column with the event's time; that of the impressions if empty.
        event_time: How to read ``time_column``; that of the source if empty.
        column_names: Column names of a file without header; empty takes the source's.
    """

    label: str
    input: tuple[str, ...]
    window_s: float
    id_column: str = ""
    time_column: str = ""
    event_time: str = ""
    column_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lookup:
    """A small side table joined to the rows by one key, for columns the log itself lacks.

    Attributes:
        input: File name patterns, searched beside the log.
        key: Column with the same name in the log and in the table.
        columns: Columns to bring over.
        key_in_log: Name of the key in the log where it differs.
        column_names: Column names of a file without header.
    """

    input: tuple[str, ...]
    key: str
    columns: tuple[str, ...]
    key_in_log: str = ""
    column_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """How to read a raw log.

    Attributes:
        input: File name patterns taken from a folder; every file of a known format if empty.
        format: ``csv``, ``tsv``, ``jsonl`` or ``parquet``; told from the file's ending if empty.
        delimiter: Separator of fields; comma (csv) or tab (tsv) if empty.
        quote: Quote character of text formats; empty means that quotes are ordinary characters.
        header: False if a text file starts with data; then ``column_names`` must be set.
        column_names: Names of the columns of a file without header.
        newlines_in_values: True if quoted values hold line breaks; each file is then one piece.
        null_values: Strings that mean "not known".
        event_time: ``s``, ``ms``, ``us``, ``ns`` since the epoch, ``iso``, ``row`` (the order of
            the rows is the clock, one microsecond a row) or a ``strptime`` format. Times without
            a zone are UTC.
        read_columns: Raw columns an adapter needs besides those the schema names.
        adapter: ``package.module:function`` that reshapes blocks of raw rows.
        types: Arrow types of side columns in text formats (others stay strings).
        impressions: Set together with ``events``.
        events: Logs joined to the impressions by id.
        lookups: Side tables.
    """

    input: tuple[str, ...] = ()
    format: str = ""
    delimiter: str = ""
    quote: str = '"'
    header: bool = True
    column_names: tuple[str, ...] = ()
    newlines_in_values: bool = False
    null_values: tuple[str, ...] = ("",)
    event_time: str = "ms"
    read_columns: tuple[str, ...] = ()
    adapter: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    impressions: Impressions = Impressions()
    events: tuple[Events, ...] = ()
    lookups: tuple[Lookup, ...] = ()


def load_source(path: Path) -> tuple[Schema, Source]:
    """Reads both parts of a ``schema.toml``: what the examples are and where they come from.

    Raises:
        SchemaError: the file is missing or not TOML, a key is unknown or a value is wrong, or
            the two parts do not fit each other.
    """
    table = read_toml(path, "schema", SchemaError)
    raw = table.pop("source", {})
    schema = schema_from_dict(table, where=str(path))
    source = from_table(Source, raw, f"{path}, [source]", SchemaError)
    _check(schema, source, f"{path}, [source]")
    return schema, source


def _check(schema: Schema, source: Source, where: str) -> None:
    if source.format and source.format not in FORMATS:
        raise SchemaError(
            f"{where}: unknown format {source.format!r}: {nearest(source.format, FORMATS)}"
        )
    for clock in (source.event_time, *(e.event_time for e in source.events if e.event_time)):
        if clock not in CLOCKS and "%" not in clock:
            raise SchemaError(
                f"{where}: event_time {clock!r} is neither a unit ({', '.join(CLOCKS)}) nor a "
                "strptime format such as '%Y-%m-%d %H:%M:%S'."
            )
    if source.event_time != "row" and "event_time" not in schema.columns:
        raise SchemaError(
            f"{where}: no column holds the event time. Set [columns] event_time, or "
            '[source] event_time = "row" if the order of the rows is the clock.'
        )
    if not source.header and not source.column_names and source.format != "parquet":
        raise SchemaError(f"{where}: header = false needs column_names.")
    _check_events(schema, source, where)


def _check_events(schema: Schema, source: Source, where: str) -> None:
    if not source.events:
        if source.impressions != Impressions():
            raise SchemaError(f"{where}: [source.impressions] needs [[source.events]] to join.")
        return
    labels = [label.name for label in schema.labels]
    for event in source.events:
        if event.label not in labels:
            raise SchemaError(
                f"{where}: events set the label {event.label!r}: {nearest(event.label, labels)}"
            )
        if event.window_s <= 0:
            raise SchemaError(
                f"{where}: events of {event.label!r}: window_s must be above 0, "
                f"received {event.window_s}."
            )
        if not event.input:
            raise SchemaError(f"{where}: events of {event.label!r}: input names no file pattern.")
    names = [e.label for e in source.events]
    if len(set(names)) < len(names):
        raise SchemaError(
            f"{where}: two [[source.events]] set the same label; give both patterns "
            "in one `input` list."
        )
    if not source.impressions.input:
        raise SchemaError(f"{where}: [source.impressions] must name its input pattern.")
    if source.event_time == "row":
        raise SchemaError(f'{where}: a join needs a real event_time, received "row".')
    key = join_column(schema, source)
    if schema.dedup and schema.dedup != (key,):
        raise SchemaError(
            f"{where}: impressions are joined and de-duplicated by {key!r}, but dedup is "
            f"{list(schema.dedup)}. Leave dedup out or make it [{key!r}]."
        )


def join_column(schema: Schema, source: Source) -> str:
    """Returns the raw column of the impressions that events refer to.

    Raises:
        SchemaError: neither ``[source.impressions]`` nor the schema's columns name one column.
    """
    if source.impressions.id_column:
        return source.impressions.id_column
    columns = schema.columns.get("example_id", ())
    if len(columns) != 1:
        raise SchemaError(
            "[source.impressions]: id_column is missing and [columns] example_id is not one "
            "column. Name the impression id that events refer to."
        )
    return columns[0]


def key_columns(schema: Schema, source: Source) -> tuple[str, ...]:
    """Returns the raw columns by which impressions are de-duplicated; empty means not at all."""
    return (join_column(schema, source),) if source.events else schema.dedup


def raw_columns(schema: Schema, source: Source) -> tuple[str, ...]:
    """Returns every raw column the schema needs, each once, in a fixed order."""
    by_event = {e.label for e in source.events}
    names: list[str] = []
    for canonical, columns in schema.columns.items():
        if not (canonical == "event_time" and source.event_time == "row"):
            names.extend(columns)
    names.extend(f.column or f.name for f in schema.features if not f.cross)
    names.extend(x.column or x.name for x in schema.labels if x.name not in by_event)
    names.extend(schema.side)
    names.extend(key_columns(schema, source))
    return tuple(dict.fromkeys(names))
