"""Guard: the four packages must come from one place.

Their import names are generic, and packages with the same names exist. Python would import such
a stranger silently, so the command line and every worker check the origin first.
"""

from __future__ import annotations

import re
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from ctr import DIST
from ctr.errors import ConfigError

PACKAGES = ("ctr", "streaming", "research_modules", "serving")


def find_origins() -> dict[str, Path]:
    """Returns the ``__init__.py`` Python would import for each of the four packages.

    Nothing but ``ctr`` itself is imported.

    Raises:
        ConfigError: a package is not to be found at all, or is a folder without ``__init__.py``.
    """
    return {name: _init_file(name, find_spec(name)) for name in PACKAGES}


def check_origins() -> Path:
    """Checks that the four packages are those of this distribution.

    Returns:
        The folder that holds all four.

    Raises:
        ConfigError: a package comes from another folder or another distribution; the message
            names both files and says what to do.
    """
    origins = find_origins()
    ours = origins["ctr"]
    for name, file in origins.items():
        if file.parent.parent != ours.parent.parent:
            raise ConfigError(
                f"the packages of {DIST} come from different places: ctr is {ours}, but "
                f"{name} is {file}. Another distribution or folder shadows {name!r}: uninstall it, "
                f"take it off the path, or install {DIST} into an environment of its own."
            )
        if not _declares_dist(file):
            raise ConfigError(
                f"{file} is not the {name!r} of {DIST}, though it lies beside {ours}: another "
                f"distribution has overwritten it. Uninstall that one, then reinstall {DIST}."
            )
    return ours.parent.parent


def _init_file(name: str, spec: ModuleSpec | None) -> Path:
    if spec is None:
        raise ConfigError(f"the package {name!r} of {DIST} is not installed. Reinstall {DIST}.")
    if spec.origin is None:
        places = ", ".join(spec.submodule_search_locations or ())
        raise ConfigError(
            f"the name {name!r} leads to a folder without __init__.py ({places}) and not to the "
            f"package of {DIST}. Rename that folder or run from elsewhere, and reinstall {DIST}."
        )
    return Path(spec.origin).resolve()


def _declares_dist(file: Path) -> bool:
    pattern = rf'^DIST = "{re.escape(DIST)}"$'
    return re.search(pattern, file.read_text(encoding="utf-8"), flags=re.MULTILINE) is not None
