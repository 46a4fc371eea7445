"""Puts the logged predictions of a run beside the examples of a data folder, for distillation."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.data import manifest
from ctr.data.manifest import Shard, file_sha256, sync, write_atomically
from ctr.errors import ConfigError, SchemaError, StreamError
from ctr.hashing import fingerprint64, mix
from ctr.schema import CANONICAL, Schema

log = logging.getLogger(__name__)

#: What is known about an attached column: which run it came from.
TEACHERS = "teachers.json"


def attach_predictions(
    data_dir: str | Path, run_dir: str | Path, out_dir: str | Path, column: str = "teacher"
) -> int:
    """Copies a data folder with one more side column: a run's progressive predictions.

    Only ``RUN/predictions.parquet`` is read, whose predictions were made before the run learned
    the example, so that no label leaks through the teacher. Rows are matched by example id and
    event time; the run may have seen more of the stream, or less: rows it has not predicted get
    null.

    Args:
        data_dir: Folder of examples.
        run_dir: A run of ``octr train --save-predictions`` with the same schema.
        out_dir: New folder.
        column: Name of the side column, float32 probabilities of the run's first label.

    Returns:
        Rows that got a prediction.

    Raises:
        SchemaError: the run was trained with another schema, or the name is taken.
        StreamError: data or predictions are missing, or no example was predicted.
        ConfigError: ``out_dir`` exists, or ``run_dir`` is no run.
    """
    from ctr.training.run import run_record

    data_dir, run_dir, out_dir = Path(data_dir), Path(run_dir), Path(out_dir)
    schema, shards = manifest.load(data_dir)
    record = run_record(run_dir)
    extended = _extended(schema, column, record, run_dir, data_dir)
    if out_dir.exists():
        raise ConfigError(f"{out_dir} exists already. Name a new folder.")
    if record["config"].get("warm_start"):
        log.warning(
            "%s began with the checkpoint %s. If that had learned these very examples, its "
            "predictions have seen their labels, and a student's gains will not be real.",
            run_dir, record["config"]["warm_start"],
        )  # fmt: skip
    keys, probs = _predictions(run_dir)
    try:
        written = [_with_column(data_dir, out_dir, s, column, keys, probs) for s in shards]
        matched = sum(n for _, n in written)
        if not matched:
            raise StreamError(
                f"{run_dir} has predicted none of the examples of {data_dir}. Use a run over the "
                "same stream."
            )
        note = {"run": record["id"], "rows": sum(s.n_rows for s in shards), "matched": matched}
        _note(data_dir, out_dir, column, note)
        manifest.commit(out_dir, extended, [shard for shard, _ in written])
    except BaseException:
        shutil.rmtree(out_dir, ignore_errors=True)
        raise
    return matched


def _extended(
    schema: Schema, column: str, record: dict[str, Any], run_dir: Path, data_dir: Path
) -> Schema:
    if record["schema"] != schema.fingerprint():
        raise SchemaError(
            f"the teacher {run_dir} was trained with schema {record['schema']} "
            f"({record['schema_name']}), but {data_dir} has schema {schema.fingerprint()} "
            f"({schema.name}). A teacher must have learned the same features and labels; use a "
            "run over this stream."
        )
    taken = {*CANONICAL, *schema.side, *(f.name for f in schema.features)}
    taken |= {name for x in schema.labels for name in (x.name, f"{x.name}_time")}
    if column in taken:
        raise SchemaError(f"{data_dir} has a column {column!r} already. Choose another name.")
    return replace(schema, side=(*schema.side, column))


def _predictions(run_dir: Path) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Returns sorted keys and the predictions in that order."""
    path = run_dir / "predictions.parquet"
    if not path.is_file():
        raise StreamError(
            f"{run_dir} has no predictions. Train it to the end with octr train --save-predictions."
        )
    table = pq.read_table(path, columns=["example_id", "event_time", "prob"])
    keys = np.concatenate([_keys(batch) for batch in table.to_batches()])
    order = np.argsort(keys, kind="stable")
    return keys[order], table.column("prob").to_numpy()[order].astype(np.float32)


def _keys(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """Returns uint64[n]: equal for equal example id and event time."""
    time_us = batch.column("event_time").cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    ids = fingerprint64(batch.column("example_id").cast(pa.string()))
    return mix(ids, time_us.to_numpy(zero_copy_only=False).astype(np.uint64))


def _with_column(
    data_dir: Path,
    out_dir: Path,
    shard: Shard,
    column: str,
    keys: NDArray[np.uint64],
    probs: NDArray[np.float32],
) -> tuple[Shard, int]:
    """Writes one shard with the column; returns its entry and the rows that have a prediction."""
    target = out_dir / shard.file
    target.parent.mkdir(parents=True, exist_ok=True)
    matched = 0
    with pq.ParquetFile(data_dir / shard.file) as source:
        fields = source.schema_arrow.append(pa.field(column, pa.float32()))
        with pq.ParquetWriter(target, fields, compression="zstd") as writer:
            for group in range(source.num_row_groups):
                table = source.read_row_group(group).combine_chunks()
                wanted = np.concatenate(
                    [_keys(b) for b in table.select(["example_id", "event_time"]).to_batches()]
                    or [np.empty(0, np.uint64)]
                )
                at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                found = keys[at] == wanted
                matched += int(found.sum())
                values = pa.array(probs[at], mask=~found)
                writer.write_table(table.append_column(fields.field(column), values))
    sync(target)
    size, digest = target.stat().st_size, file_sha256(target)
    return replace(shard, size_bytes=size, sha256=digest), matched


def _note(data_dir: Path, out_dir: Path, column: str, note: dict[str, Any]) -> None:
    """Keeps which run each attached column came from, those of earlier calls included."""
    before = data_dir / TEACHERS
    teachers = json.loads(before.read_text()) if before.is_file() else {}
    text = json.dumps({**teachers, column: note}, indent=1)
    write_atomically(out_dir / TEACHERS, text.encode())
