"""Frozen dataclasses as configuration: overrides by path, and their plain-data form."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ctr.errors import ConfigError, nearest

T = TypeVar("T")


def override(config: T, assignments: Iterable[str]) -> T:
    """Returns ``config`` with ``a.b=value`` assignments applied.

    Values are read as TOML (``64``, ``0.1``, ``true``, ``[64, 32]``); anything else is a string.

    Raises:
        ConfigError: an assignment has no ``=``, names an unknown field (the message names the
            nearest one) or gives a value of another type.
    """
    for text in assignments:
        path, value = assignment(text)
        config = _assign(config, path, value, text)
    return config


def assignment(text: str) -> tuple[list[str], Any]:
    """Splits ``a.b=value`` into the path ``["a", "b"]`` and the value.

    Raises:
        ConfigError: there is no ``=``, or a part of the path is empty.
    """
    name, equals, value = text.partition("=")
    path = [part.strip() for part in name.split(".")]
    if not equals or not all(path):
        raise ConfigError(f"--set {text!r}: expected a.b=value.")
    return path, toml_value(value.strip())


def toml_value(text: str) -> Any:
    """Returns what a text means in TOML; a text that is no TOML value stands for itself."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(config: T, path: list[str], value: Any, text: str) -> T:
    where = f"--set {text!r}"
    if not dataclasses.is_dataclass(config):
        raise ConfigError(f"{where}: {config!r} has no fields to set.")
    known = [f.name for f in dataclasses.fields(config)]
    name, *rest = path
    if name not in known:
        raise ConfigError(f"{where}: no field {name!r}: {nearest(name, known)}")
    old = getattr(config, name)
    if rest:
        new = _assign(old, rest, value, text)
    else:
        new = _checked(value, old, where)
    return dataclasses.replace(config, **{name: new})  # type: ignore[type-var]


def _checked(value: Any, old: Any, where: str) -> Any:
    if dataclasses.is_dataclass(old):
        raise ConfigError(f"{where}: this is a group of settings; set one of its fields.")
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(old):
        raise ConfigError(f"{where}: expected {type(old).__name__}, received {value!r}.")
    return value


def to_plain(config: Any) -> Any:
    """Returns JSON-ready data: dataclasses become dicts that name their class."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"class": class_name(type(config)), **fields}
    if isinstance(config, list | tuple):
        return [to_plain(item) for item in config]
    if isinstance(config, dict):
        return {str(key): to_plain(item) for key, item in config.items()}
    return config


def from_plain(plain: Any, known: Mapping[str, type], where: str = "configuration") -> Any:
    """Rebuilds what ``to_plain`` took apart; lists become tuples.

    Args:
        plain: Result of ``to_plain``, possibly by way of JSON.
        known: Classes by ``class_name``. Nothing else is instantiated, and nothing is imported,
            so data from elsewhere cannot run code.
        where: What the data are, for error messages.

    Raises:
        ConfigError: a class is not known, or has no such field.
    """
    if isinstance(plain, list | tuple):
        return tuple(from_plain(item, known, f"{where}[{i}]") for i, item in enumerate(plain))
    if not isinstance(plain, dict):
        return plain
    values = {
        key: from_plain(value, known, f"{where}.{key}")
        for key, value in plain.items()
        if key != "class"
    }
    if "class" not in plain:
        return values
    name = plain["class"]
    if name not in known:
        raise ConfigError(
            f"{where}: no class {name!r}: {nearest(name, known)}. If it belongs to a plug-in, "
            "install that."
        )
    fields = [f.name for f in dataclasses.fields(known[name])]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: {name} has no field {key!r}: {nearest(key, fields)}")
    try:
        return known[name](**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {name} cannot be built: {error}.") from None


def class_name(cls: type) -> str:
    """Returns the name that stands for a class in plain data; ours go without their module."""
    own = cls.__module__.partition(".")[0] == "ctr"
    return cls.__qualname__ if own else f"{cls.__module__}:{cls.__qualname__}"


def content_hash(plain: Any) -> str:
    """Returns 12 hex digits that identify plain data by content."""
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
