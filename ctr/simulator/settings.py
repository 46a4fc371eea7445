"""Reads a world's configuration from a TOML file and ``--set`` overrides."""

from __future__ import annotations

import dataclasses
import datetime
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctr.errors import ConfigError, nearest
from ctr.simulator.config import LabelSpec, WorldConfig


def load_world(path: str | Path | None = None, overrides: Sequence[str] = ()) -> WorldConfig:
    """Returns the default world changed by a file, then by overrides.

    Args:
        path: A TOML file with the fields of :class:`WorldConfig` as keys; ``[labels.<name>]``
            changes a default label, or adds one if all its required keys are there.
        overrides: Texts such as ``"shift_logit=0.5"`` or ``"labels.click.rate=0.05"``; the
            value is TOML, or a bare word for a string.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value is wrong.
    """
    config = WorldConfig()
    if path is not None:
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"no file at {path}. Pass the path of a world's TOML file.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}.") from None
        config = _changed(config, table, str(path))
    for text in overrides:
        config = _changed(config, _parse(text), f"--set {text}")
    return config


def _parse(text: str) -> dict[str, Any]:
    """Turns ``a.b=value`` into the nested table ``{"a": {"b": value}}``."""
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"--set {text}: expected KEY=VALUE, as in --set shift_logit=0.5.")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.split(".")):
        parsed = {part.strip(): parsed}
    return parsed


def _changed(config: WorldConfig, table: Mapping[str, Any], where: str) -> WorldConfig:
    types = {f.name: str(f.type) for f in dataclasses.fields(WorldConfig)}
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in types:
            raise ConfigError(f"{where}: unknown key {key!r}: {nearest(key, types)}")
        if key == "labels":
            changes[key] = _labels(config.labels, value, where)
        else:
            changes[key] = _coerce(value, types[key], f"{where}, key {key!r}")
    return dataclasses.replace(config, **changes)


def _labels(labels: tuple[LabelSpec, ...], table: Any, where: str) -> tuple[LabelSpec, ...]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: labels: expected tables such as [labels.click].")
    fields = {f.name: f for f in dataclasses.fields(LabelSpec) if f.name != "name"}
    known = {label.name: label for label in labels}
    for name, values in table.items():
        here = f"{where}, labels.{name}"
        if not isinstance(values, Mapping):
            raise ConfigError(f"{here}: expected a table of the label's keys, received {values!r}.")
        changes = {}
        for key, value in values.items():
            if key not in fields:
                raise ConfigError(f"{here}: unknown key {key!r}: {nearest(key, fields)}")
            changes[key] = _coerce(value, str(fields[key].type), f"{here}, key {key!r}")
        if name in known:
            known[name] = dataclasses.replace(known[name], **changes)
        elif missing := [
            key
            for key, field in fields.items()
            if field.default is dataclasses.MISSING and key not in changes
        ]:
            raise ConfigError(
                f"{here}: no such label: {nearest(name, known)}. A new one needs the keys "
                f"{', '.join(missing)}."
            )
        else:
            known[name] = LabelSpec(name=name, **changes)
    return tuple(known.values())


def _coerce(value: Any, annotation: str, where: str) -> Any:
    """Checks a TOML value against a field's annotation; lists become tuples."""
    if annotation.startswith("tuple["):
        item = annotation.removeprefix("tuple[").partition(",")[0]
        if not isinstance(value, list):
            raise ConfigError(f"{where}: expected a list, received {value!r}.")
        return tuple(_coerce(v, item, where) for v in value)
    if annotation == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation == "str" and isinstance(value, datetime.date):  # TOML reads a bare date as one
        return value.isoformat()
    if type(value).__name__ != annotation:
        raise ConfigError(f"{where}: expected {annotation}, received {value!r}.")
    return value
