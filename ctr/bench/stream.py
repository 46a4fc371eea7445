"""The benchmark stream: 13 numbers and 26 zipf-distributed categories with a planted signal."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.data.manifest import Shard, commit, file_sha256
from ctr.data.shard_write import write_rows
from ctr.schema import Feature, Label, Schema

N_NUMERIC, N_CATEGORIES = 13, 26
_START_US = 1_700_000_000_000_000
_STEP_US = 20_000


class Rows(NamedTuple):
    """Generated examples.

    Attributes:
        codes: int64[n, 26], category numbers.
        numeric: float32[n, 13].
        label: int8[n].
    """

    codes: NDArray[np.int64]
    numeric: NDArray[np.float32]
    label: NDArray[np.int8]


def bench_schema() -> Schema:
    """Returns the schema of the stream; its metrics and calibration are sliced by ``c0``."""
    features = [Feature(f"i{i}", kind="numeric", log=True) for i in range(N_NUMERIC)]
    features += [Feature(f"c{i}") for i in range(N_CATEGORIES)]
    return Schema("bench", tuple(features), (Label("click"),), slices=("c0",))


def cardinalities() -> NDArray[np.int64]:
    """Returns the number of categories per feature, 3 to a million in even ratios."""
    return np.geomspace(3, 1_000_000, N_CATEGORIES).astype(np.int64)


def generate(n_rows: int, seed: int = 0) -> Rows:
    """Draws examples; about 23 % are clicks."""
    rng = np.random.default_rng(seed)
    sizes = cardinalities()
    # sizes ** uniform is log-uniform: the share of category k falls as 1 / k.
    codes = np.floor(sizes ** rng.random((n_rows, N_CATEGORIES))).astype(np.int64)
    numeric = rng.lognormal(1.0, 1.5, (n_rows, N_NUMERIC)).astype(np.float32)
    effects = rng.normal(0.0, 0.25, (N_CATEGORIES, 4096))
    logit = -1.5 + effects[np.arange(N_CATEGORIES), codes % 4096].sum(axis=1)
    logit += 0.1 * np.log1p(numeric) @ rng.normal(0.0, 1.0, N_NUMERIC)
    label = rng.random(n_rows) < 1.0 / (1.0 + np.exp(-logit))
    return Rows(codes, numeric, label.astype(np.int8))


def write_shard(folder: Path, rows: Rows) -> None:
    """Writes the examples as a committed data folder of one shard, categories as strings."""
    n = len(rows.label)
    times = _START_US + _STEP_US * np.arange(n)
    columns: dict[str, pa.Array] = {
        "example_id": pa.array(np.char.add("e", np.arange(n).astype("U"))),
        "event_time": pa.array(times).cast(pa.timestamp("us", "UTC")),
    }
    for i in range(N_NUMERIC):
        columns[f"i{i}"] = pa.array(np.ascontiguousarray(rows.numeric[:, i]))
    for i in range(N_CATEGORIES):
        used, index = np.unique(rows.codes[:, i], return_inverse=True)
        words = pa.array([f"{int(code) * 2_654_435_761 % (1 << 32):08x}" for code in used])
        columns[f"c{i}"] = words.take(pa.array(index))
    columns["click"] = pa.array(rows.label)
    file = folder / "shards" / "part-00000.parquet"
    file.parent.mkdir(parents=True)
    write_rows(pa.table(columns), file)
    first, last = int(times[0]), int(times[-1])
    shard = Shard(
        0, "shards/part-00000.parquet", n, file.stat().st_size, file_sha256(file),
        first, last, last,
    )  # fmt: skip
    commit(folder, bench_schema(), [shard])
