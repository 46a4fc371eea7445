"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ctr  # noqa: F401 (first of all: selects Keras 2 before a test imports TensorFlow)

ROOT = Path(__file__).resolve().parents[1]


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
