"""What a run says when its folder can no longer be written."""

from __future__ import annotations

import errno
from pathlib import Path

from ctr.errors import CheckpointError, ConfigError, CtrError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
         errno.EFBIG: "a file grew beyond the allowed size"}  # fmt: skip


def explain(error: OSError, run_dir: Path) -> CtrError:
    """Returns an error that says what to do about one of the system's."""
    where = error.filename or run_dir
    if error.errno in _FULL:
        return CheckpointError(
            f"{where}: {_FULL[error.errno]}. The checkpoints in {run_dir} are intact: make room "
            "and run the same command again, it goes on from the newest."
        )
    return ConfigError(
        f"{where}: {error.strerror or error}. Check that the data can be read and that {run_dir} "
        "can be written, then run the same command again."
    )
