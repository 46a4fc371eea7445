"""The process that trains: its memory."""

from __future__ import annotations

import resource


def peak_memory_bytes() -> int:
    """Returns the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
