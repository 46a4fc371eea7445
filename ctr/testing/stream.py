"""The tiny recipe and the tiny simulated stream that the checks of a module train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.data.examples import Block, Chunk, Examples
from ctr.data.packing import whole_query_places
from ctr.data.side import BUILT_IN, side_values
from ctr.hashing import fingerprint64
from ctr.learner import Learner
from ctr.models import WideDcn
from ctr.recipe import Recipe
from ctr.schema import Schema
from ctr.simulator import WorldConfig, simulate_examples

_BATCH = 32
_WORLD = WorldConfig(
    days=1.0, n_users=200, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4, dim=4
)


def tiny_recipe() -> Recipe:
    """Returns the default recipe in a size that compiles and trains in seconds."""
    model = WideDcn(dim=4, cross_layers=1, cross_rank=4, hidden=(16, 8))
    return Recipe(model=model, batch_size=_BATCH, table_rows=2048)


def tiny_stream(n_rows: int, columns: Sequence[str]) -> tuple[Schema, pa.RecordBatch]:
    """Simulates examples with the given side columns.

    Those that the simulator does not have are random in (0, 1).
    """
    simulated = simulate_examples(n_rows, 1, _WORLD)
    schema, table = simulated.schema, simulated.examples
    own = [c for c in columns if c not in BUILT_IN or not schema.has(BUILT_IN[c][0])]
    rng = np.random.default_rng(1)
    for name in own:
        values = rng.uniform(0.05, 0.95, table.num_rows).astype(np.float32)
        whole = name in BUILT_IN and np.issubdtype(BUILT_IN[name][1], np.integer)
        table = table.append_column(
            name, pa.array((values < 0.3).astype(np.int8) if whole else values)
        )
    canonical = {c: (c,) for c in own if c in BUILT_IN}
    side = tuple(c for c in own if c not in BUILT_IN)
    schema = replace(schema, side=side, columns={**schema.columns, **canonical})
    return schema, table.combine_chunks().to_batches()[0]


def encoded(learner: Learner, batch: pa.RecordBatch) -> Block:
    """Returns the examples as a learner takes them."""
    found = learner.encoder.encode(batch)
    labels = [np.asarray(batch.column(x).fill_null(-1), np.float32) for x in learner.labels]
    return Block(
        found.ids,
        found.numeric,
        np.column_stack(labels),
        np.ones(batch.num_rows, np.float32),
        batch.column("event_time").cast(pa.int64()).to_numpy(zero_copy_only=False),
        fingerprint64(batch.column("query_id")),
        {name: side_values(batch, name) for name in learner.side},
        batch.select(["example_id", *learner.schema.slices]),
    )


def cut_chunks(learner: Learner, block: Block) -> list[tuple[Examples, Chunk]]:
    """Cuts examples into the chunks of a learner; queries stay whole where it wants that."""
    shape, found, at = learner.chunk_shape, [], 0
    n = len(block.time_us)
    while at < n:
        places = None
        stop = min(n, at + shape[0] * shape[1])
        if learner.whole_queries:
            assert block.query is not None
            taken, places = whole_query_places(block.query[at : stop + 1], shape, Counter())
            stop = at + taken
        examples = Examples((block.cut(at, stop),), at, stop - at, {}, places)
        found.append((examples, examples.chunk(shape)))
        at = stop
    return found


def padded_chunk(chunk: Chunk, n_rows: int, padding: Chunk | None = None) -> Chunk:
    """Returns a chunk whose rows from ``n_rows`` on have weight 0.

    Args:
        chunk: The chunk, K batches of B rows.
        n_rows: Rows that keep their weights.
        padding: What the other rows hold; nothing (zeros) if None.
    """
    shape = chunk.weights.shape
    keep = (np.arange(shape[0] * shape[1]) < n_rows).reshape(shape)

    def part(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
        rest = np.zeros_like(ours) if padding is None else theirs
        return np.where(keep.reshape(shape + (1,) * (ours.ndim - 2)), ours, rest)

    other = padding or chunk
    return Chunk(
        part(chunk.ids, other.ids),
        part(chunk.numeric, other.numeric),
        part(chunk.labels, other.labels),
        np.where(keep, chunk.weights, np.float32(0)),
        {name: part(values, other.side[name]) for name, values in chunk.side.items()},
    )
