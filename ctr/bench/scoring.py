"""Scores a file of progressive predictions against the shards it was made from.

Halves are halves of the rows, not of event time or of metric windows, so that any two learners
that saw the same shards are compared on the very same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.data import manifest
from ctr.errors import ConfigError, StreamError, nearest
from ctr.hashing import fingerprint64
from ctr.metrics.query_auc import QueryAuc
from ctr.metrics.rows import ScoredRows, score_rows
from ctr.metrics.slices import N_SCALARS, SliceValues, add_scalars, slice_report
from ctr.metrics.sums import MetricSums

#: A slice value with fewer rows in the second half says little about calibration.
MIN_SLICE_ROWS = 1_000
#: Slice values told apart; the ones that appear later are pooled.
_MAX_VALUES = 10_000


@dataclass(frozen=True)
class Rows:
    """What predictions are scored against, in stream order.

    Attributes:
        example_id: String array, n rows.
        label: int8[n]; -1 means unknown.
        weight: float32[n], importance divided by the sampling rate.
        query: uint64[n], hash of the query id, or None where the stream has none.
        slices: Feature -> its values, n each.
    """

    example_id: pa.ChunkedArray
    label: NDArray[np.int8]
    weight: NDArray[np.float32]
    query: NDArray[np.uint64] | None
    slices: dict[str, pa.ChunkedArray]

    @property
    def half(self) -> int:
        """The row at which the second half starts."""
        return len(self.label) // 2


def read_rows(data_dir: Path, slices: Sequence[str] = ()) -> Rows:
    """Reads labels, weights, queries and slice columns of all committed shards.

    Args:
        data_dir: Folder written by ``octr ingest``.
        slices: Features to slice by, beside those of the schema.

    Raises:
        CtrError: there are no rows, or a slice is no column.
    """
    schema, shards = manifest.load(data_dir)
    if not shards:
        raise StreamError(f"{data_dir} holds no examples. Ingest a log that has rows.")
    features = list(dict.fromkeys([*schema.slices, *slices]))
    present = pq.read_schema(data_dir / shards[0].file).names
    for name in features:
        if name not in present:
            raise ConfigError(f"--slice {name!r} is no column of {data_dir}: "
                              f"{nearest(name, present)}")  # fmt: skip
    label = schema.labels[0].name
    extra = [name for name in ("query_id", "weight", "sampling_rate") if schema.has(name)]
    wanted = list(dict.fromkeys(["example_id", label, *extra, *features]))
    table = pa.concat_tables(
        pq.read_table(data_dir / shard.file, columns=wanted) for shard in shards
    )
    weight = np.ones(len(table), np.float32)
    if "weight" in extra:
        weight = weight * table["weight"].cast(pa.float32()).to_numpy()
    if "sampling_rate" in extra:
        weight = weight / table["sampling_rate"].cast(pa.float32()).to_numpy()
    query = fingerprint64(table["query_id"].combine_chunks()) if "query_id" in extra else None
    return Rows(
        table["example_id"].cast(pa.string()),
        table[label].fill_null(-1).to_numpy().astype(np.int8),
        weight,
        query,
        {name: table[name] for name in features},
    )


def read_predictions(path: Path, rows: Rows) -> NDArray[np.float32]:
    """Reads the primary probabilities of a ``predictions.parquet``, float32[n].

    Raises:
        StreamError: the file is not about these rows in this order.
    """
    table = pq.read_table(path, columns=["example_id", "prob"])
    same = (
        len(table) == len(rows.label)
        and pc.all(pc.equal(table["example_id"], rows.example_id)).as_py()
    )
    if not same:
        raise StreamError(
            f"{path} holds {len(table):,} predictions that are not about the "
            f"{len(rows.label):,} rows of the data in their order. Train on these data."
        )
    return table["prob"].to_numpy()


def score(rows: Rows, prob: NDArray[np.float32]) -> dict[str, Any]:
    """Returns the metrics of progressive predictions.

    Args:
        rows: What was predicted.
        prob: float32[n].

    Returns:
        ``all`` and ``second_half``, each with ``log_loss``, ``auc`` (exact), ``per_query_auc``,
        ``calibration`` and the rest of :class:`MetricSums`; ``slices``: feature -> value ->
        metrics over the second half, values of at least ``MIN_SLICE_ROWS`` rows, largest first.
    """
    late = slice(rows.half, None)
    return {
        "all": _metrics(rows, prob, slice(None)),
        "second_half": _metrics(rows, prob, late),
        "slices": {name: _slice(rows, prob, late, column) for name, column in rows.slices.items()},
    }


def _metrics(rows: Rows, prob: NDArray[np.float32], part: slice) -> dict[str, Any]:
    scored = score_rows(prob[part], rows.label[part], rows.weight[part])
    sums = MetricSums.empty()
    sums.add_rows(scored)
    values = sums.values()
    # As one single query the rows are ranked exactly, where the sums count on a grid.
    values["auc"] = _query_auc(np.zeros(len(scored), np.uint64), scored)
    if rows.query is not None:
        query = rows.query[part]
        values["per_query_auc"] = _query_auc(
            query if scored.kept is None else query[scored.kept], scored
        )
    return values


def _query_auc(query: NDArray[np.uint64], scored: ScoredRows) -> float | None:
    auc = QueryAuc(max_rows=max(2, len(scored)))
    auc.add(query, scored, [])
    return auc.value()


def _slice(
    rows: Rows, prob: NDArray[np.float32], part: slice, column: pa.ChunkedArray
) -> dict[str, Any]:
    scored = score_rows(prob[part], rows.label[part], rows.weight[part])
    numbering = SliceValues(_MAX_VALUES)
    codes = numbering.encode(column[rows.half :])
    if scored.kept is not None:
        codes = codes[scored.kept]
    table = np.zeros((_MAX_VALUES + 1, N_SCALARS))
    add_scalars(table, codes, scored)
    report = slice_report(numbering.names, table)
    large = [(name, v) for name, v in report.items() if v["examples"] >= MIN_SLICE_ROWS]
    return dict(sorted(large, key=lambda item: -item[1]["examples"]))
