"""The verbs of the command line, found by entry point so that the core names no other package.

A verb that cannot be imported must not take the others down: it is kept with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from ctr import DIST
from ctr.errors import ConfigError

GROUP = "ctr.commands"
#: Optional import packages and the extra of the distribution that brings each.
EXTRAS = {
    "apache_beam": "stream",
    "ai_edge_litert": "lite",
    "confluent_kafka": "kafka",
    "httptools": "serve",
    "prometheus_client": "serve",
    "sklearn": "bench",
    "starlette": "serve",
    "uvicorn": "serve",
    "vowpalwabbit": "bench",
}


def command_line(words: Sequence[str]) -> list[str]:
    """Returns the command that runs ``octr`` with these words in a process of its own.

    By this interpreter, because the console script need not be on the path.
    """
    call = "import sys; from ctr.cli import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", call, *words]


def load_verbs() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Imports the module behind every registered verb.

    Returns:
        The verbs that work, and for each other one a sentence that says why not; both by name.

    Raises:
        ConfigError: two distributions register the same verb.
    """
    modules: dict[str, ModuleType] = {}
    unavailable: dict[str, str] = {}
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        if point.name in points:
            raise ConfigError(
                f"the verb {point.name!r} is registered twice: by {_owner(points[point.name])} "
                f"and by {_owner(point)}. Uninstall one of the two."
            )
        points[point.name] = point
        try:
            modules[point.name] = point.load()
        except Exception as error:  # a third party's module may fail in any way
            unavailable[point.name] = explain_import(error)
    return modules, unavailable


def explain_import(error: Exception) -> str:
    """Says why an import failed and, for an optional dependency, how to get it."""
    extra = missing_extra(error)
    if extra is not None:
        return f"it needs {extra[0]}: pip install '{DIST}[{extra[1]}]'"
    return f"it cannot be imported: {type(error).__name__}: {error}"


def missing_extra(error: Exception) -> tuple[str, str] | None:
    """Returns the missing optional package and its extra, or None for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    return (package, EXTRAS[package]) if package in EXTRAS else None


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name if point.dist else 'an unnamed distribution'} ({point.value})"
