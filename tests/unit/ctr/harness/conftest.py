"""Tiny streams in data folders, and recipes that compile fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.data.manifest import Shard, commit, file_sha256
from ctr.schema import Feature, Label, Schema

TINY = ("model.hidden=[8]", "model.dim=4", "table_rows=2048", "batch_size=32")


def _write_stream(
    folder: Path,
    schema: Schema,
    time_us: np.ndarray,
    features: dict[str, Any],
    labels: dict[str, Any],
    query: Any = None,
    **more: Any,
) -> Path:
    """Writes rows in time order as a data folder of one shard."""
    (folder / "shards").mkdir(parents=True)
    n = len(time_us)
    columns: dict[str, Any] = {
        "example_id": pa.array([str(i) for i in range(n)]),
        "event_time": pa.array(time_us.astype(np.int64)).cast(pa.timestamp("us", "UTC")),
        **features,
        **{name: pa.array(values, pa.int8()) for name, values in labels.items()},
        **more,
    }
    if query is not None:
        columns["query_id"] = query
    path = folder / "shards" / "00000.parquet"
    pq.write_table(pa.table(columns), path)
    shard = Shard(
        0, "shards/00000.parquet", n, path.stat().st_size, file_sha256(path),
        int(time_us[0]), int(time_us[-1]), int(time_us[-1]),
    )  # fmt: skip
    commit(folder, schema, [shard])
    return folder


@pytest.fixture(scope="session")
def random_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 rows over 300 s: two categories with an effect, two labels, pages of 4."""
    rng = np.random.default_rng(0)
    n = 3000
    a, b = rng.integers(0, 8, n), rng.integers(0, 30, n)
    logit = np.linspace(-2, 1, 8)[a] + 0.2
    labels = {name: (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int) for name in "xy"}
    schema = Schema(
        "random",
        (Feature("a"), Feature("b")),
        (Label("x", delay_s=20.0), Label("y", delay_s=50.0)),
        columns={"query_id": ("query_id",)},
        slices=("a",),
    )
    return _write_stream(
        tmp_path_factory.mktemp("random") / "data",
        schema,
        np.arange(n) // 4 * 400_000 + 1_700_000_000_000_000,
        {"a": [f"a{v}" for v in a], "b": [f"b{v}" for v in b]},
        labels,
        [f"q{i // 4}" for i in range(n)],
    )


@pytest.fixture(scope="session")
def write_stream() -> Callable[..., Path]:
    """The function that writes rows in time order as a data folder of one shard."""
    return _write_stream


@pytest.fixture
def page() -> Callable[..., dict[str, Any]]:
    """Returns a maker of tiny experiment tables."""

    def make(data: Path, **changes: Any) -> dict[str, Any]:
        table: dict[str, Any] = {
            "name": "tiny",
            "stream": {"data": str(data), "burn_in": 500},
            "base": {"recipe": "mlp", "set": list(TINY)},
            "seeds": [1, 2],
        }
        return {**table, **changes}

    return make
