"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ctr  # noqa: F401 (first of all: selects Keras 2 before a test imports TensorFlow)

ROOT = Path(__file__).resolve().parents[1]
MAX_MAPS = Path("/proc/sys/vm/max_map_count")


@pytest.fixture(autouse=True, scope="module")
def _memory_maps() -> None:
    """Ends the session before the kernel does, whose word for it is a segmentation fault.

    XLA never gives the memory maps of a compiled function back, and the tests compile thousands.
    """
    with open("/proc/self/maps", "rb") as file:
        used = sum(1 for _ in file)
    if MAX_MAPS.is_file() and used > 0.9 * int(MAX_MAPS.read_text()):
        pytest.exit(
            f"this process holds {used:,} memory maps, of {MAX_MAPS.read_text().strip()} that "
            "the kernel allows: run the tests in more processes, as `make test` does",
            returncode=3,
        )


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout these tests belong to."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real click logs; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("OCTR_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real click logs at {folder}; set OCTR_SHARED_DATA to their folder")
    return folder
