"""``BLESSED`` and ``NOT_BLESSED``: a gate's verdict, kept inside the version it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctr.data.manifest import file_sha256, write_atomically
from serving.versions import MANIFEST, all_versions

BLESSED = "BLESSED"
NOT_BLESSED = "NOT_BLESSED"


def write_verdict(version: Path, passed: bool, content: Mapping[str, Any]) -> Path:
    """Puts a verdict into a version, in place of an earlier one.

    A blessing names the manifest's checksum, and that names all files: it is worth nothing once
    the version was changed.
    """
    manifest = version / MANIFEST
    digest = file_sha256(manifest) if manifest.is_file() else None
    text = json.dumps({"manifest_sha256": digest, **content}, indent=1)
    mine, other = (BLESSED, NOT_BLESSED) if passed else (NOT_BLESSED, BLESSED)
    # A refusal takes effect before it is explained; a blessing is complete before it counts.
    if not passed:
        (version / other).unlink(missing_ok=True)
    write_atomically(version / mine, text.encode())
    (version / other).unlink(missing_ok=True)
    return version / mine


def is_blessed(version: Path) -> bool:
    """True if a gate passed this version and its manifest is still the one that was judged."""
    try:
        verdict = json.loads((version / BLESSED).read_text())
        return verdict["manifest_sha256"] == file_sha256(version / MANIFEST)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def blessed_versions(models_dir: Path) -> list[Path]:
    """Returns the blessed versions of a folder, oldest first."""
    return [version for version in all_versions(models_dir) if is_blessed(version)]
