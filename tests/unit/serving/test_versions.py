from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from serving.versions import newest_version, partial_version, publish


def test_versions_are_numbers_compared_as_such(tmp_path: Path) -> None:
    assert newest_version(tmp_path) is None
    for name in ("9", "10", "11x", ".export-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").write_text("a file")
    assert newest_version(tmp_path) == tmp_path / "10"


def test_a_version_is_complete_when_it_appears(tmp_path: Path) -> None:
    models = tmp_path / "new" / "models"
    before = int(time.time())
    with partial_version(models) as partial:
        (partial / "variables").mkdir()
        (partial / "variables" / "data").write_bytes(b"weights")
        assert newest_version(models) is None
        final = publish(partial)
    assert before <= int(final.name) <= int(time.time())
    assert (final / "variables" / "data").read_bytes() == b"weights"
    assert list(models.iterdir()) == [final]
    # A server runs as another user.
    assert final.stat().st_mode & 0o777 == models.stat().st_mode & 0o777


def test_numbers_only_grow_even_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for now in (1000.0, 1000.9, 990.0):
        monkeypatch.setattr("serving.versions.time.time", lambda now=now: now)
        with partial_version(tmp_path) as partial:
            (partial / "file").touch()
            names.append(publish(partial).name)
    assert names == ["1000", "1001", "1002"]


def test_a_faster_export_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.versions.time.time", lambda: 1000.0)
    (tmp_path / "1000").mkdir()
    (tmp_path / "1000" / "theirs").touch()
    # As it looked before the other one was done.
    monkeypatch.setattr("serving.versions.newest_version", lambda folder: None)
    with partial_version(tmp_path) as partial:
        (partial / "ours").touch()
        assert publish(partial) == tmp_path / "1001"
    assert [p.name for p in (tmp_path / "1000").iterdir()] == ["theirs"]


def test_leftovers_go_after_a_day_and_failures_at_once(tmp_path: Path) -> None:
    for name, age_s in ((".export-old", 90_000), (".export-running", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)

    def fail() -> None:
        with partial_version(tmp_path) as partial:
            (partial / "half").touch()
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == [".export-running"]
