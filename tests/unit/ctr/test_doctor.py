from __future__ import annotations

import json
import tempfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from ctr import doctor, doctor_learner
from ctr.cli import main
from ctr.doctor import Check

REQUIRES = ["numpy>=2.4,<3", "rich>=15", 'apache-beam>=2.77; extra == "stream"']


def install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    """Makes the checks see these distributions and no others."""

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(doctor.metadata, "version", version)


def test_versions_in_the_tested_range_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"numpy": "2.4.6", "rich": "15.0", "apache-beam": "2.80.0"})
    checks = doctor.check_versions()
    assert [(c.name, c.status, c.fix) for c in checks] == [
        ("numpy", "ok", ""),
        ("rich", "ok", ""),
        ("apache-beam", "ok", ""),
    ]


def test_versions_outside_warn_and_missing_ones_fail_unless_optional(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, {"numpy": "1.26.4"})
    numpy, rich, beam = doctor.check_versions()
    assert numpy.status == "warn"
    assert "1.26.4" in numpy.detail
    assert rich.status == "fail"
    assert (beam.status, beam.fix) == ("warn", "pip install 'online-ctr[stream]'")


def test_more_threads_than_cores_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(doctor, "_cgroup_cores", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    check = doctor.check_threads()
    assert check.status == "warn"
    assert "OMP_NUM_THREADS" in check.fix
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert doctor.check_threads().status == "ok"


def test_container_quota_below_the_cores_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(doctor, "_cgroup_cores", lambda: 1.5)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    check = doctor.check_threads()
    assert (check.status, "TF_NUM_INTRAOP_THREADS=1 " in check.fix) == ("warn", True)


def test_little_memory_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_memory().status in ("ok", "warn")
    monkeypatch.setattr(doctor, "MIN_MEMORY_BYTES", 2**60)
    assert doctor.check_memory().status == "warn"


def test_writable_folder_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "not" / "yet"))
    check = doctor.check_path("cache")
    assert check.status in ("ok", "warn")  # warn: little disk space
    assert f"{tmp_path}/not/yet is writable" in check.detail
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("role", "status", "fix"), [("tmp", "fail", "TMPDIR="), ("cwd", "warn", "--output")]
)
def test_unwritable_folder_says_how_to_choose_another(
    monkeypatch: pytest.MonkeyPatch, role: str, status: str, fix: str
) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    check = doctor.check_path(role)
    assert check.status == status
    assert fix in check.fix
    assert "Permission denied" in check.detail


def test_folder_that_is_gone_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert doctor.check_path("cwd").status == "warn"


def test_foreign_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise doctor.CtrError("streaming is /elsewhere/streaming/__init__.py")

    monkeypatch.setattr(doctor, "check_origins", refuse)
    assert doctor.check_packages().status == "fail"


def test_check_that_raises_is_a_finding() -> None:
    check = doctor._guarded("odd", lambda: 1 / 0)
    assert (check.name, check.status) == ("odd", "fail")
    assert "ZeroDivisionError" in check.detail


@pytest.mark.parametrize(("name", "function"), doctor_learner.LEARNER_CHECKS)
def test_learner_checks_pass_here(name: str, function) -> None:
    check = function()
    assert (check.name, check.status, check.fix) == (name, "ok", "")


def test_hashes_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    import ctr.hashing

    zeros = lambda array: np.zeros(len(array), np.uint64)  # noqa: E731
    monkeypatch.setattr(ctr.hashing, "fingerprint64", zeros)
    check = doctor_learner.check_hashes()
    assert check.status == "fail"
    assert "élan" in check.detail


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_command_prints_remedies_and_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, status: str, code: int
) -> None:
    found = [Check("python", "ok", "3.11"), Check("disk", status, "as found", "do this")]
    monkeypatch.setattr(doctor, "run_checks", lambda: found)
    assert main(["doctor"]) == code
    assert "fix: do this" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "disk",
        "status": status,
        "detail": "as found",
        "fix": "do this",
    }
