"""What a benchmark ran on, for the record beside its numbers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("tensorflow", "tf_keras", "tensorflow-recommenders", "numpy", "pyarrow")


def machine() -> dict[str, Any]:
    """Returns processor, cores, memory, load and the versions that decide speed."""
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _first(file: str, key: str) -> str | None:
    path = Path(file)
    for line in path.read_text().splitlines() if path.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
