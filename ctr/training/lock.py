"""One writer per run folder."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from ctr.errors import ConfigError

log = logging.getLogger(__name__)

LOCK = ".lock"


class RunLock:
    """An advisory lock on a run folder; the system takes it back when the process ends.

    Args:
        run_dir: The run folder, which exists.
        doing: What a process does that holds it, and the option that names the folder.

    Raises:
        ConfigError: another process trains this run, or the folder cannot be written.
    """

    def __init__(self, run_dir: Path, doing: tuple[str, str] = ("training", "--run")) -> None:
        try:
            self._handle: int | None = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(
                f"{doing[1]} {run_dir} cannot be written: {error.strerror}. Name a folder that can."
            ) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(
                f"another process is {doing[0]} {run_dir}. Wait for it, or name another "
                f"{doing[1]} folder."
            ) from None
        except OSError as error:
            # Some network file systems have no locks.
            log.warning("%s cannot be locked (%s): train it once at a time.", run_dir, error)

    def release(self) -> None:
        """Gives the folder free; may be called more than once."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.release()
