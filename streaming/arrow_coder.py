"""Arrow RecordBatches as Beam elements: one element carries thousands of rows through a shuffle."""

from __future__ import annotations

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import Coder


class RecordBatchCoder(Coder):
    """Encodes a RecordBatch as an Arrow IPC stream of its own (schema included)."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """Returns the IPC stream; slices are written without the rest of their buffers."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        return sink.getvalue().to_pybytes()

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """Returns the batch; its buffers point into ``encoded``."""
        return pa.ipc.open_stream(pa.py_buffer(encoded)).read_next_batch()

    def is_deterministic(self) -> bool:
        """False: equal batches may carry different padding, so a batch is never a shuffle key."""
        return False

    def to_type_hint(self) -> type:
        """Returns the type this coder is for."""
        return pa.RecordBatch


def register() -> None:
    """Makes Beam use this coder for ``pa.RecordBatch``; call it before building a pipeline."""
    beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)
