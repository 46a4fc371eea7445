"""Frozen dataclasses from TOML, with errors that name the place."""

from __future__ import annotations

import dataclasses
import datetime
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from ctr.errors import ConfigError, CtrError, nearest

T = TypeVar("T")


def read_toml(path: Path, what: str, error: type[CtrError] = ConfigError) -> dict[str, Any]:
    """Reads a TOML file.

    Args:
        path: The file.
        what: What it is, for messages, such as ``"schema"``.
        error: Class of the errors.

    Raises:
        CtrError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"no {what} at {path}. Pass the path of its TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise error(f"{path} is not valid TOML: {reason}.") from None


def from_table(cls: type[T], table: Any, where: str, error: type[CtrError] = ConfigError) -> T:
    """Builds a dataclass from a table; nested dataclasses, tuples and mappings by annotation.

    Args:
        cls: A dataclass; fields without a default are required.
        table: What TOML gave.
        where: The place, for messages.
        error: Class of the errors.

    Raises:
        CtrError: an unknown key (the message names the nearest), a missing one, a wrong type.
    """
    values = field_values(cls, table, where, error)
    missing = [name for name in required_fields(cls) if name not in values]
    if missing:
        raise error(f"{where}: the key {missing[0]!r} is missing. Add it.")
    return cls(**values)


def field_values(
    cls: type, table: Any, where: str, error: type[CtrError] = ConfigError
) -> dict[str, Any]:
    """Reads those fields of a dataclass that a table has, as :func:`from_table` does."""
    if not isinstance(table, Mapping):
        raise error(f"{where}: expected a table, received {table!r}.")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in table:
        if key not in known:
            raise error(f"{where}: unknown key {key!r}: {nearest(key, known)}")
    return {key: _value(hints[key], value, f"{where}.{key}", error) for key, value in table.items()}


def required_fields(cls: type) -> list[str]:
    """Returns the names of the fields without a default."""
    return [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]


def _value(hint: Any, value: Any, where: str, error: type[CtrError]) -> Any:
    if hint is Any:
        return value
    if get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(a for a in get_args(hint) if a is not type(None))
        return _value(hint, value, where, error)
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        if item is str and isinstance(value, str):
            value = [value]  # a single name needs no brackets
        if not isinstance(value, list | tuple):
            raise error(f"{where}: expected a list, received {value!r}.")
        return tuple(_value(item, v, f"{where}[{n}]", error) for n, v in enumerate(value))
    if dataclasses.is_dataclass(hint):
        read = getattr(hint, "from_table", None)
        return read(value, where) if read else from_table(hint, value, where, error)  # type: ignore[arg-type]
    if get_origin(hint) is not None:
        if not isinstance(value, Mapping):
            raise error(f"{where}: expected a table, received {value!r}.")
        item = get_args(hint)[1]
        return {str(k): _value(item, v, f"{where}.{k}", error) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, datetime.date):  # TOML reads a bare date as one
        return value.isoformat()
    if type(value) is not hint:
        raise error(f"{where}: expected {hint.__name__}, received {value!r}.")
    return value
