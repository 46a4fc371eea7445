"""Runs a command in a process of its own and takes the operating system's word on its cost."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ctr.errors import CtrError

_SHOWN_LINES = 12


@dataclass(frozen=True)
class Usage:
    """What a finished process cost.

    Attributes:
        cpu_s: CPU seconds, user and system, of all its threads, start-up included.
        wall_s: Seconds from start to end.
    """

    cpu_s: float
    wall_s: float


def run_child(command: Sequence[str]) -> Usage:
    """Runs a command without standard input and waits for it.

    Raises:
        CtrError: it failed; the message ends with the last lines it wrote.
    """
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - start
        if process.returncode:
            output.seek(0)
            lines = output.read().decode(errors="replace").splitlines()[-_SHOWN_LINES:]
            raise CtrError(
                f"{' '.join(command)} ended with exit code {process.returncode}:\n"
                + "\n".join(lines)
            )
    return Usage(usage.ru_utime + usage.ru_stime, wall_s)
