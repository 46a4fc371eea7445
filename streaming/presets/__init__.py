"""Schemas of public data sets, one TOML file each; a Python file beside it reshapes odd rows."""

from __future__ import annotations

from pathlib import Path

from ctr.errors import ConfigError, nearest
from ctr.schema import Schema
from streaming.source import Source, load_source

_FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """Returns the names of the shipped presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_preset(name: str) -> tuple[Schema, Source]:
    """Reads a shipped preset.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in preset_names():
        raise ConfigError(f"--preset: unknown data set {name!r}: {nearest(name, preset_names())}")
    return load_source(_FOLDER / f"{name}.toml")
