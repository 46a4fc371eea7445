"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    """Gives a path for a temporary file in ``folder``; what is still there at the end is removed.

    Workers may run the same bundle at the same time; each writes a file of its own.
    """
    path = folder / f".{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it when the block ends well."""
    with scratch_file(path.parent) as temporary:
        yield temporary
        temporary.replace(path)
