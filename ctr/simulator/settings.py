"""Reads a world's configuration from a TOML file and ``--set`` overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctr.config import assignment
from ctr.errors import ConfigError, nearest
from ctr.fields import field_values, read_toml, required_fields
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
        config = _changed(config, read_toml(Path(path), "world"), f"{path}: world")
    for text in overrides:
        config = _changed(config, _table(text), f"--set {text}: world")
    return config


def _table(text: str) -> dict[str, Any]:
    """Turns ``a.b=value`` into the nested table ``{"a": {"b": value}}``."""
    path, value = assignment(text)
    for part in reversed(path):
        value = {part: value}
    return value


def _changed(config: WorldConfig, table: Mapping[str, Any], where: str) -> WorldConfig:
    values = {key: value for key, value in table.items() if key != "labels"}
    changes = field_values(WorldConfig, values, where)
    if "labels" in table:
        changes["labels"] = _labels(config.labels, table["labels"], f"{where}.labels")
    return dataclasses.replace(config, **changes)


def _labels(labels: tuple[LabelSpec, ...], table: Any, where: str) -> tuple[LabelSpec, ...]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected tables such as [labels.click].")
    known = {label.name: label for label in labels}
    for name, values in table.items():
        here = f"{where}.{name}"
        changes = field_values(LabelSpec, values, here)
        if "name" in changes:
            raise ConfigError(f"{here}: a label's name is that of its table. Leave `name` out.")
        missing = [key for key in required_fields(LabelSpec) if key not in {"name", *changes}]
        if name in known:
            known[name] = dataclasses.replace(known[name], **changes)
        elif missing:
            raise ConfigError(
                f"{here}: no such label: {nearest(name, known)}. A new one needs the keys "
                f"{', '.join(missing)}."
            )
        else:
            known[name] = LabelSpec(name=name, **changes)
    return tuple(known.values())
