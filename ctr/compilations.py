"""Counts what XLA compiles: a graph that is traced once may still be compiled many times.

XLA compiles a graph anew for every value of a number that it has to know while compiling, such
as the bound of a ``tf.range``. No counter of TensorFlow's shows that, but its profiler does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

#: What XLA's compilers for CPU and GPU call the step that turns one graph into machine code.
_EVENTS = ("CpuCompiler::RunBackend", "GpuCompiler::RunBackend")


@dataclass
class Compilations:
    """How many graphs were compiled; known when the block that counts is left."""

    count: int = 0


@contextmanager
def counted_compilations() -> Iterator[Compilations]:
    """Yields a count of XLA's compilations inside the block.

    Raises:
        tf.errors.AlreadyExistsError: a profiler runs already; there is one for the process.
    """
    options = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=2, python_tracer_level=0, device_tracer_level=0
    )
    found = Compilations()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, options)
        try:
            yield found
        finally:
            tf.profiler.experimental.stop()
        found.count = sum(map(_count, Path(folder).rglob("*.xplane.pb")))


def _count(file: Path) -> int:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    names = [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]
    return sum(name.startswith(_EVENTS) for name in names)
