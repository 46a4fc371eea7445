"""Small data folders and one pass over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.data import manifest
from ctr.schema import Schema

#: Writes columns (event_time in microseconds) as a data folder of the given schema.
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def build(schema: Schema, name: str = "data", row_group: int = 100, **columns: Any) -> Path:
        folder = tmp_path / name
        (folder / "shards").mkdir(parents=True)
        n = len(columns["click"])
        columns.setdefault("example_id", [f"e{i}" for i in range(n)])
        times = np.asarray(columns.pop("event_time", np.arange(n) * 1_000_000))
        columns["event_time"] = pa.array(times, pa.timestamp("us", "UTC"))
        for label in schema.labels:
            columns[label.name] = pa.array(columns[label.name], pa.int8())
        shards = []
        for number, part in enumerate(np.array_split(np.arange(n), 2)):
            path = folder / "shards" / f"{number}.parquet"
            table = pa.table(columns).slice(part[0], len(part))
            pq.write_table(table, path, row_group_size=row_group)
            data = path.read_bytes()
            first, last = int(times[part].min()), int(times[part].max())
            digest = hashlib.sha256(data).hexdigest()
            file = f"shards/{path.name}"
            shards.append(
                manifest.Shard(number, file, len(part), len(data), digest, first, last, last)
            )
        manifest.commit(folder, schema, shards)
        return folder

    return build


@dataclass
class Pass:
    """What one pass over a data folder gave.

    Attributes:
        prob: float64[n], progressive predictions of the first label.
        weights: float32[n].
        rows: int64[n], number of each example, from the ids ``e0``, ``e1``, ...
        learner: The learner at the end.
    """

    prob: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    learner: Any


@pytest.fixture
def one_pass() -> Callable[..., Pass]:
    def run(folder: Path, recipe: Any, seed: int = 0, learner: Any = None) -> Pass:
        from ctr.data.reader import ShardReader
        from ctr.learner import Learner

        schema, shards = manifest.load(folder)
        learner = learner or Learner(recipe, schema, seed)
        reader = ShardReader(
            folder, schema, shards, learner.encoder, learner.labels, 0, learner.side,
            learner.whole_queries, recipe.sampler,
        )  # fmt: skip
        probs, weights, ids = [], [], []
        for examples in reader.chunks(learner.chunk_shape):
            out = learner.learn(examples.chunk(learner.chunk_shape))
            probs.append(examples.rows(out)[:, 0])
            for block in examples.blocks:
                weights.append(block.weights)
                ids += [int(x[1:]) for x in block.frame.column("example_id").to_pylist()]
        return Pass(
            np.concatenate(probs).astype(float), np.concatenate(weights), np.array(ids), learner
        )

    return run
