"""RecordBatches on disk, and the small references to them that travel through a shuffle instead.

A local runner holds every shuffle in memory. What travels by reference costs it a few dozen bytes
per batch, so that memory does not grow with the length of the log. The folder must be visible
to all workers, as the output folder has to be anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from streaming.files import replace_file


@dataclass(frozen=True)
class Spilled:
    """One batch of an Arrow IPC file."""

    path: str
    index: int

    def load(self) -> pa.RecordBatch:
        """Reads the whole batch."""
        with pa.OSFile(self.path) as stream:
            return pa.ipc.open_file(stream).get_batch(self.index)

    def map(self) -> pa.RecordBatch:
        """Maps the batch; only the columns that are looked at are read."""
        with pa.memory_map(self.path) as mapped:
            return pa.ipc.open_file(mapped).get_batch(self.index)


def spill(path: Path, batches: Sequence[pa.RecordBatch]) -> list[Spilled]:
    """Writes batches of one schema to a file that appears when it is whole."""
    with replace_file(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    return [Spilled(str(path), i) for i in range(len(batches))]
