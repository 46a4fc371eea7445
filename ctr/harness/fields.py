"""Frozen dataclasses from the tables of a TOML page, with errors that name the place."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from ctr.errors import ConfigError, nearest

T = TypeVar("T")


def from_table(cls: type[T], table: Any, where: str) -> T:
    """Builds a dataclass from a table; nested dataclasses, tuples and mappings by annotation.

    Args:
        cls: A dataclass; fields without a default are required.
        table: What TOML gave.
        where: The place, for messages.

    Raises:
        ConfigError: an unknown key (the message names the nearest), a missing one, a wrong type.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected a table, received {table!r}.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}: {nearest(key, fields)}")
        values[key] = _value(hints[key], value, f"{where}.{key}")
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise ConfigError(f"{where}: the key {name!r} is missing. Add it.")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if get_origin(hint) in (types.UnionType, typing.Union):
        return _value(next(a for a in get_args(hint) if a is not type(None)), value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, received {value!r}.")
        item = get_args(hint)[0]
        return tuple(_value(item, v, f"{where}[{n}]") for n, v in enumerate(value))
    if dataclasses.is_dataclass(hint):
        read = getattr(hint, "from_table", None)
        return read(value, where) if read else from_table(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is not None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a table, received {value!r}.")
        item = get_args(hint)[1]
        return {str(k): _value(item, v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: expected {hint.__name__}, received {value!r}.")
    return value
