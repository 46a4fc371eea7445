"""A folder of model versions, as TensorFlow Serving watches it: ``MODELS/<number>/``."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctr.data.manifest import sync

MANIFEST = "manifest.json"
#: Layout of the manifest.
FORMAT = 1
_PARTIAL = ".export-"
#: What a killed export left behind goes after a day; an export that runs is never that old.
_STALE_S = 86_400.0


def all_versions(models_dir: Path) -> list[Path]:
    """Returns the version folders, by number."""
    found = [p for p in models_dir.glob("[0-9]*") if p.name.isdecimal() and p.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def newest_version(models_dir: Path) -> Path | None:
    """Returns the version folder with the largest number, or None."""
    found = all_versions(models_dir)
    return found[-1] if found else None


@contextmanager
def partial_version(models_dir: Path) -> Iterator[Path]:
    """Yields a new folder that no server looks at; it is gone afterwards unless published."""
    models_dir.mkdir(parents=True, exist_ok=True)
    for stale in models_dir.glob(f"{_PARTIAL}*"):
        if time.time() - stale.stat().st_mtime > _STALE_S:
            shutil.rmtree(stale, ignore_errors=True)
    partial = models_dir / f"{_PARTIAL}{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish(partial: Path) -> Path:
    """Makes a complete folder a version by one rename: the present Unix second, or the next free.

    Returns:
        The version folder.
    """
    for folder, _, files in os.walk(partial):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    models_dir = partial.parent
    newest = newest_version(models_dir)
    version = max(int(time.time()), int(newest.name) + 1 if newest else 0)
    while True:
        final = models_dir / str(version)
        try:
            partial.rename(final)
        except OSError as error:
            # Another export was faster.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            version += 1
            continue
        sync(models_dir)
        return final
