"""The arms of the learner benchmark that are our own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.bench.gemm import gemm_only, layer_shapes
from ctr.bench.stream import N_CATEGORIES, N_NUMERIC, Rows, bench_schema, write_shard
from ctr.bench.timing import Arm
from ctr.data import manifest
from ctr.data.examples import Chunk
from ctr.data.prefetch import prefetch
from ctr.data.reader import ShardReader
from ctr.learner import Learner
from ctr.metrics import ProgressiveMetrics
from ctr.models import WideDcn
from ctr.recipe import Recipe

_MODEL = WideDcn(dim=16, cross_layers=2, cross_rank=64, hidden=(256, 128, 64))
_WINDOW_US = 60_000_000


def gemm(batch_size: int, n_rows: int, compiled: bool) -> Arm:
    """Returns the floor of the model: its matrix products over ``n_rows`` examples."""
    width = N_CATEGORIES * _MODEL.dim + N_NUMERIC
    shapes = layer_shapes(width, _MODEL.cross_layers, _MODEL.cross_rank, _MODEL.hidden)
    n_batches = n_rows // batch_size
    how = "compiled" if compiled else "op by op"
    call = gemm_only(shapes, n_batches, batch_size, compiled)
    return Arm(f"matrix products only, {how}, B={batch_size}", call, n_batches * batch_size)


def step(rows: Rows, batch_size: int, table_rows: int = 1 << 20, name: str = "") -> Arm:
    """Returns predicting and learning batches that are in memory, already encoded."""
    learner = _learner(batch_size, table_rows)
    n_batches, _ = learner.chunk_shape
    size = n_batches * batch_size
    # Stands in for the encoder: spreads (feature, category) over the table's rows.
    mixed = rows.codes * 2_654_435_761 + np.arange(N_CATEGORIES) * 0x9E3779B1
    ids = ((mixed >> 7) % (table_rows - 1) + 1).astype(np.int32)
    labels = rows.label.astype(np.float32)[:, None]
    ones = np.ones(len(labels), np.float32)

    def chunk(at: int) -> Chunk:
        shape = n_batches, batch_size
        return Chunk(
            _cut(ids, at, shape),
            _cut(rows.numeric, at, shape),
            _cut(labels, at, shape),
            _cut(ones, at, shape),
            {},
        )

    chunks = [chunk(at) for at in range(0, len(labels), size)]

    def run() -> None:
        for chunk in chunks:
            learner.learn(chunk)

    return Arm(name or f"step, B={batch_size}", run, len(chunks) * size)


def end_to_end(rows: Rows, batch_size: int, folder: Path) -> Arm:
    """Returns reading string Parquet, encoding, learning and scoring, as ``octr train`` does."""
    write_shard(folder, rows)
    learner = _learner(batch_size, 1 << 20)
    schema, shards = manifest.load(folder)
    shape = learner.chunk_shape
    slices = learner.schema.slices

    def run() -> None:
        reader = ShardReader(folder, schema, shards, learner.encoder, learner.labels)
        metrics = ProgressiveMetrics(slices, _WINDOW_US)
        for examples in prefetch(reader.chunks(shape)):
            probs = examples.rows(learner.learn(examples.chunk(shape)))
            at = 0
            for block in examples.blocks:
                n = len(block.time_us)
                metrics.update(
                    block.time_us, probs[at : at + n, 0], block.labels[:, 0], block.weights,
                    slices={name: block.frame.column(name) for name in slices},
                )  # fmt: skip
                at += n

    # Padding of the last chunk is worked through as well, and is no example.
    return Arm(f"end to end from string Parquet, B={batch_size}", run, len(rows.label))


def _learner(batch_size: int, table_rows: int) -> Learner:
    recipe = Recipe(model=_MODEL, batch_size=batch_size, table_rows=table_rows)
    return Learner(recipe, bench_schema())


def _cut(column: NDArray[Any], at: int, shape: tuple[int, int]) -> NDArray[Any]:
    """Returns ``[K, B, ...]`` from row ``at``; rows beyond the end are taken from the start."""
    index = np.arange(at, at + shape[0] * shape[1]) % len(column)
    return column[index].reshape((*shape, *column.shape[1:]))
