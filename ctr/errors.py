"""The error tree: every error a user can act on says what, where, what was received, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CtrError(Exception):
    """Base of all errors with a message meant for the user; the command line exits with 2."""

    exit_code = 2


class ConfigError(CtrError):
    """A configuration file, option or combination of options that cannot be used."""


class SchemaError(CtrError):
    """A schema that is wrong in itself, or data that do not fit the schema."""


class StreamError(CtrError):
    """Input data that cannot be read, are out of order or exceed a stated limit of bad rows."""


class CheckpointError(CtrError):
    """A checkpoint that is damaged or belongs to another schema or recipe."""


class ModuleError(CtrError):
    """A research module that breaks the plug-in contract or conflicts with another."""


class ExportError(CtrError):
    """A model that cannot be exported or whose export disagrees with the learner."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint such as ``"did you mean 'seed'? Known: ..."`` for an unknown name."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}"
