"""``octr doctor``'s checks of the machine and the installation, each with its remedy.

Checks that need TensorFlow are in ``ctr.doctor_learner``; other packages add theirs through the
entry-point group ``ctr.doctor_checks``, each a function without arguments that returns a
:class:`Check`.
"""

from __future__ import annotations

import importlib.metadata as metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ctr import DIST
from ctr.errors import CtrError
from ctr.origin import check_origins

GROUP = "ctr.doctor_checks"
GIB = 2**30
#: Below these a normal run is likely to fail; the shipped recipes need about a third of it.
MIN_MEMORY_BYTES = 2 * GIB
MIN_DISK_BYTES = 1 * GIB


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: Short name, unique.
        status: ``ok``; ``warn`` (works, with a caveat); ``fail`` (something will not work).
        detail: What was found.
        fix: What to do about it; empty if ``ok``.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


def run_checks() -> list[Check]:
    """Runs every check; one that raises counts as failed and harms no other."""
    from ctr.doctor_learner import LEARNER_CHECKS

    checks = [check_python(), *check_versions()]
    named = [("packages", check_packages), ("threads", check_threads), ("memory", check_memory)]
    named += [(f"path {role}", _path_check(role)) for role in _PATHS]
    named += LEARNER_CHECKS
    checks += [_guarded(name, function) for name, function in named]
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda p: p.name):
        checks.append(_guarded(point.name, _plugged_in(point)))
    return checks


def check_python() -> Check:
    """Python itself against the distribution's ``requires-python``."""
    version, tested = platform.python_version(), metadata.metadata(DIST)["Requires-Python"]
    if version in SpecifierSet(tested):
        return Check("python", "ok", f"{version} (tested: {tested})")
    return Check("python", "fail", f"{version}, tested: {tested}", "Make a venv with Python 3.11.")


def check_versions() -> list[Check]:
    """The installed dependencies against the tested ranges the distribution declares."""
    requirements = [Requirement(line) for line in metadata.requires(DIST) or ()]
    base = [r for r in requirements if r.marker is None]
    stream = [r for r in requirements if r.marker and r.marker.evaluate({"extra": "stream"})]
    return [_version(r) for r in base] + [_version(r, "stream") for r in stream if r not in base]


def _version(requirement: Requirement, extra: str = "") -> Check:
    tested = str(requirement.specifier)
    target = f"'{DIST}[{extra}]'" if extra else f"'{requirement}'"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        status: Literal["warn", "fail"] = "warn" if extra else "fail"
        what = "not installed (optional)" if extra else "not installed"
        return Check(requirement.name, status, what, f"pip install {target}")
    if requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, "ok", f"{version} (tested: {tested})")
    detail = f"{version} is untested, tested: {tested}"
    return Check(requirement.name, "warn", detail, f"pip install {target}")


def check_packages() -> Check:
    """The four packages come from one place."""
    try:
        return Check("packages", "ok", f"all four from {check_origins()}")
    except CtrError as error:
        return Check("packages", "fail", str(error), f"See the message; reinstall {DIST}.")


def check_threads() -> Check:
    """Usable cores against the thread numbers set in the environment."""
    usable = len(os.sched_getaffinity(0))
    quota = _cgroup_cores()
    cores = min(usable, quota) if quota else float(usable)
    variables = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    asked = {name: os.environ[name] for name in variables if os.environ.get(name)}
    detail = f"{cores:g} of {os.cpu_count()} cores usable, " + (
        ", ".join(f"{k}={v}" for k, v in asked.items()) if asked else "no thread number set"
    )
    for name, value in asked.items():
        if not value.isdecimal() or int(value) > max(1.0, cores):
            fix = f"Unset {name} or set it to at most {max(1, int(cores))}."
            return Check("threads", "warn", detail, fix)
    if quota and usable > quota:
        fix = f"export TF_NUM_INTRAOP_THREADS={max(1, int(quota))} (the container's CPU quota)."
        return Check("threads", "ok" if asked else "warn", detail, "" if asked else fix)
    return Check("threads", "ok", detail)


def _cgroup_cores() -> float | None:
    """CPU quota of the container in cores, None without one."""
    file = Path("/sys/fs/cgroup/cpu.max")
    words = file.read_text().split() if file.is_file() else ["max"]
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def check_memory() -> Check:
    """Memory that is free now, within the container's limit."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # also counts the page cache, which gives way
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        total = min(total, int(limit.read_text()))
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    detail = f"{available / GIB:.1f} GiB free of {total / GIB:.1f} GiB"
    if available >= MIN_MEMORY_BYTES:
        return Check("memory", "ok", detail)
    return Check("memory", "warn", detail, "Free some memory or train with a smaller table.")


def check_path(role: str) -> Check:
    """Writes, syncs and deletes a small file in one of the folders that runs write to.

    Args:
        role: ``tmp``, ``cwd`` or ``cache``.
    """
    name, (find, fix) = f"path {role}", _PATHS[role]
    try:
        path = folder = find()
        while not folder.exists():  # it would be made below this one
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"octr")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        status: Literal["warn", "fail"] = "fail" if role == "tmp" else "warn"
        return Check(name, status, f"not writable: {error}", fix)
    free = shutil.disk_usage(folder).free
    detail = f"{path} is writable, {free / GIB:.1f} GiB free"
    if free >= MIN_DISK_BYTES:
        return Check(name, "ok", detail)
    return Check(name, "warn", detail, f"Free some disk space. {fix}")


def _cache_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MPLCONFIGDIR") or cache / "matplotlib")


#: Folders that runs write to: how to find each, and what to do if it cannot be written to.
_PATHS: dict[str, tuple[Callable[[], Path], str]] = {
    "tmp": (lambda: Path(tempfile.gettempdir()), "export TMPDIR=/a/writable/folder"),
    "cwd": (Path.cwd, "Run from a writable folder, or give --output and --run absolute paths."),
    "cache": (_cache_folder, "export MPLCONFIGDIR=/a/writable/folder"),
}


def _path_check(role: str) -> Callable[[], Check]:
    return lambda: check_path(role)


def _plugged_in(point: metadata.EntryPoint) -> Callable[[], Check]:
    return lambda: point.load()()


def _guarded(name: str, function: Callable[[], Check]) -> Check:
    try:
        return function()
    except Exception as error:  # a check that breaks is itself a finding
        detail = f"the check itself failed: {type(error).__name__}: {error}"
        return Check(name, "fail", detail, "Reinstall from requirements.lock; then report this.")
