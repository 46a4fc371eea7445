"""What a stream of examples looks like: features, labels and the columns around them.

A :class:`Schema` describes the columns of the *ingested* shards (see ``ctr.data``). In a
``schema.toml`` every entry may also name the raw column it comes from; reading raw logs is the
business of ``streaming`` and its ``[source]`` table, which this file leaves alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctr.errors import SchemaError, nearest
from ctr.fields import read_toml

_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")
KINDS = ("categorical", "numeric", "bag")
#: Columns with a fixed name and meaning in every ingested shard. ``example_id`` and
#: ``event_time`` are always there, the others where the schema's ``[columns]`` names a source.
CANONICAL = (
    "example_id", "event_time", "query_id", "position", "weight", "sampling_rate", "correction"
)  # fmt: skip


@dataclass(frozen=True)
class Feature:
    """One model input.

    Attributes:
        name: Column in the ingested shards and in serving requests.
        kind: ``categorical`` (one string), ``numeric`` (one float) or ``bag`` (a token list).
        column: Column in the raw log; the name itself when empty.
        ui: True for presentation features (position, layout), kept apart from ad quality.
        salt: Namespace of the hash; the feature's name when empty. Two features with equal salt
            share embedding rows.
        cross: Names of categorical features whose combination this feature stands for; it then
            has no column of its own.
        admission: Occurrences an id needs before it gets an embedding row of its own.
        expiry_s: Seconds of event time without an occurrence after which a row is forgotten;
            0 keeps rows for ever.
        max_length: Tokens of a bag that are kept; further ones are cut and counted.
        separator: Splits a bag that arrives as one string; empty means it arrives as a list.
        text: True splits a bag's string into lower-cased words instead of by ``separator``.
        ngrams: Longest word n-gram of a text bag (1 = words only).
        log: True maps a numeric ``x`` to ``sign(x) * log1p(|x|)`` first.
        standardize: True shifts and scales a numeric feature by running statistics.
        bins: Ascending edges; a numeric feature then becomes the id of its bin.
    """

    name: str
    kind: str = "categorical"
    column: str = ""
    ui: bool = False
    salt: str = ""
    cross: tuple[str, ...] = ()
    admission: int = 1
    expiry_s: float = 0.0
    max_length: int = 16
    separator: str = ""
    text: bool = False
    ngrams: int = 1
    log: bool = False
    standardize: bool = True
    bins: tuple[float, ...] = ()

    @property
    def hashed(self) -> bool:
        """True if the feature looks up embedding rows (everything but an unbinned numeric)."""
        return self.kind != "numeric" or bool(self.bins)

    @property
    def n_slots(self) -> int:
        """Id columns this feature fills in an encoded batch."""
        if self.kind == "bag":
            return self.max_length
        return 1 if self.hashed else 0


@dataclass(frozen=True)
class Label:
    """One thing to predict, 0 or 1 per example (null: not known for this example).

    Attributes:
        name: Column in the ingested shards, int8.
        column: Column in the raw log; the name itself when empty.
        delay_s: Seconds after ``event_time`` until the label may be learned from.
        threshold: When set, the raw value is a number and the label is ``value >= threshold``.
    """

    name: str
    column: str = ""
    delay_s: float = 0.0
    threshold: float | None = None


@dataclass(frozen=True)
class Schema:
    """Columns of a stream of examples.

    Attributes:
        name: Short name of the stream.
        features: Model inputs, in order.
        labels: Targets; the first is the primary one.
        columns: Canonical column -> raw column(s) it comes from.
        slices: Features (categorical) or ``position`` to report metrics and calibration by.
        side: Further shard columns that are kept for losses and reports, never for the model.
        dedup: Raw columns that identify an event; a repeated key is dropped and counted.
    """

    name: str
    features: tuple[Feature, ...]
    labels: tuple[Label, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
    side: tuple[str, ...] = ()
    dedup: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    def feature(self, name: str) -> Feature:
        """Returns the feature called ``name``.

        Raises:
            SchemaError: there is none; the message names the nearest one.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise SchemaError(
            f"schema {self.name!r} has no feature {name!r}: "
            f"{nearest(name, [f.name for f in self.features])}"
        )

    def has(self, canonical: str) -> bool:
        """True if shards of this schema carry the given canonical column."""
        return canonical in ("example_id", "event_time") or canonical in self.columns

    def fingerprint(self) -> str:
        """Returns 16 hex digits that change whenever the model's inputs or targets change."""
        parts = {
            "features": [
                {k: v for k, v in dataclasses.asdict(f).items() if k != "column"}
                for f in self.features
            ],
            "labels": [label.name for label in self.labels],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _check(schema: Schema) -> None:
    """Raises SchemaError on the first thing that is wrong in the schema itself."""
    where = f"schema {schema.name!r}"
    if not schema.features:
        raise SchemaError(f"{where}: no features. Add at least one [[features]] table.")
    if not schema.labels:
        raise SchemaError(f"{where}: no labels. Add at least one [[labels]] table.")
    seen: set[str] = set(CANONICAL)
    for name in [f.name for f in schema.features] + [label.name for label in schema.labels]:
        if name in seen:
            raise SchemaError(
                f"{where}: the name {name!r} is used twice or is reserved "
                f"({', '.join(CANONICAL)}). Rename the feature or label and set its `column`."
            )
        if not _NAME.fullmatch(name):
            raise SchemaError(
                f"{where}: the name {name!r} cannot be a serving input. Use letters, digits and _ "
                "(first a letter) and set its `column` to the raw name."
            )
        seen.add(name)
    for canonical in schema.columns:
        if canonical not in CANONICAL:
            raise SchemaError(
                f"{where}: [columns] has an unknown key {canonical!r}: "
                f"{nearest(canonical, CANONICAL)}"
            )
    for feature in schema.features:
        _check_feature(schema, feature, where)
    for name in schema.slices:
        if name != "position" and schema.feature(name).kind == "bag":
            raise SchemaError(f"{where}: cannot slice by the bag {name!r}; use a categorical.")


def _check_feature(schema: Schema, feature: Feature, where: str) -> None:
    here = f"{where}, feature {feature.name!r}"
    if feature.kind not in KINDS:
        raise SchemaError(f"{here}: unknown kind {feature.kind!r}: {nearest(feature.kind, KINDS)}")
    if list(feature.bins) != sorted(set(feature.bins)):
        raise SchemaError(f"{here}: bins must ascend, received {list(feature.bins)}.")
    if feature.bins and feature.kind != "numeric":
        raise SchemaError(f"{here}: bins need kind = 'numeric', received {feature.kind!r}.")
    if feature.max_length < 1 or feature.admission < 1 or feature.ngrams < 1:
        raise SchemaError(f"{here}: max_length, admission and ngrams must be at least 1.")
    for part in feature.cross:
        other = schema.feature(part)
        if other.cross or other.kind == "bag" or not other.hashed:
            raise SchemaError(
                f"{here}: can only cross plain categorical or binned features, not {part!r}."
            )
    if len(feature.cross) == 1 or (feature.cross and feature.kind != "categorical"):
        raise SchemaError(f"{here}: a cross needs kind 'categorical' and two or more features.")


def load_schema(path: str | Path) -> Schema:
    """Reads the learner's part of a ``schema.toml`` (its ``[source]`` table is not looked at).

    Raises:
        SchemaError: the file is missing, is not TOML, or has an unknown key or a wrong value.
    """
    table = read_toml(Path(path), "schema", SchemaError)
    table.pop("source", None)
    return schema_from_dict(table, where=str(path))


def schema_from_dict(table: Mapping[str, Any], where: str = "schema") -> Schema:
    """Builds a schema from plain data; unknown keys are errors that name the nearest one."""
    table = dict(table)
    features = tuple(
        _build(Feature, f, f"{where}, [[features]]") for f in table.pop("features", ())
    )
    labels = tuple(_build(Label, x, f"{where}, [[labels]]") for x in table.pop("labels", ()))
    columns = {k: _strings(v) for k, v in dict(table.pop("columns", {})).items()}
    return _build(
        Schema, {**table, "features": features, "labels": labels, "columns": columns}, where
    )


def schema_to_dict(schema: Schema) -> dict[str, Any]:
    """Plain data (JSON and TOML types only) from which the schema can be built again."""
    table = dataclasses.asdict(schema)
    defaults = {f.name: f.default for f in dataclasses.fields(Feature)}
    table["features"] = [
        {k: v for k, v in feature.items() if k == "name" or v != defaults[k]}
        for feature in table["features"]
    ]
    table["labels"] = [{k: v for k, v in x.items() if v not in (None, "")} for x in table["labels"]]
    return json.loads(json.dumps(table))


def _strings(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    kwargs: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise SchemaError(f"{where}: unknown key {key!r}: {nearest(key, known)}")
        kwargs[key] = _coerce(value, str(known[key].type), f"{where}, key {key!r}")
    if "name" not in kwargs:
        raise SchemaError(f"{where}: the key 'name' is missing.")
    return cls(**kwargs)


def _coerce(value: Any, annotation: str, where: str) -> Any:
    """Checks a TOML value against a dataclass annotation; lists become tuples."""
    expected: tuple[type, ...]
    if annotation.startswith("tuple"):
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise SchemaError(f"{where}: expected a list, received {value!r}.")
        return tuple(value)
    if annotation.startswith("Mapping"):
        return value
    expected = {"str": (str,), "bool": (bool,), "int": (int,)}.get(annotation, (int, float))
    if value is None and "None" in annotation:
        return None
    if not isinstance(value, expected) or (isinstance(value, bool) and annotation != "bool"):
        raise SchemaError(f"{where}: expected {annotation}, received {value!r}.")
    return value
