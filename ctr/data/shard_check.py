"""What can be said about a shard before its rows are read: presence, size, columns, types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ctr.data.manifest import Shard
from ctr.encoding import Encoder
from ctr.errors import SchemaError, StreamError
from ctr.schema import Schema

_TIME = pa.timestamp("us", "UTC")


def check_size(path: Path, shard: Shard) -> None:
    """Checks that a file is there and has the committed size.

    Raises:
        StreamError: it is missing or has another size.
    """
    if not path.is_file():
        raise StreamError(f"{path} is in the manifest but not on disk. Restore it or ingest again.")
    size = path.stat().st_size
    if size != shard.size_bytes:
        raise StreamError(
            f"{path}: damaged or truncated: expected {shard.size_bytes:,} bytes, received "
            f"{size:,}. Restore it or ingest again."
        )


def open_shard(path: Path, strings: Sequence[str] = ()) -> pq.ParquetFile:
    """Opens a Parquet file; the columns ``strings`` are read as dictionaries.

    Raises:
        StreamError: it is no Parquet file.
    """
    try:
        return pq.ParquetFile(path, read_dictionary=list(strings), memory_map=True)
    except pa.ArrowException as error:
        raise StreamError(
            f"{path}: not a readable Parquet file ({_line(error)}). Restore it or ingest again."
        ) from None


def read_group(file: pq.ParquetFile, path: Path, group: int, columns: list[str]) -> pa.RecordBatch:
    """Reads one row group as one batch.

    Raises:
        StreamError: its pages are damaged.
    """
    try:
        table = file.read_row_group(group, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StreamError(
            f"{path}, row group {group}: cannot be read ({_line(error)}). Restore the file or "
            "ingest again."
        ) from None
    batch: pa.RecordBatch = table.combine_chunks().to_batches()[0]
    return batch


def check_footer(
    file: pq.ParquetFile,
    path: Path,
    shard: Shard,
    columns: Sequence[str],
    schema: Schema,
    encoder: Encoder,
    labels: Sequence[str],
) -> None:
    """Checks the row count, the columns and their types.

    Raises:
        StreamError: the file holds another number of rows than was committed.
        SchemaError: a column is missing or has a type that cannot be used.
    """
    if file.metadata.num_rows != shard.n_rows:
        raise StreamError(
            f"{path}: expected {shard.n_rows:,} rows, as the manifest says, received "
            f"{file.metadata.num_rows:,}. Ingest again."
        )
    fields = file.schema_arrow
    for name in columns:
        if name not in fields.names:
            raise SchemaError(
                f"{path}: column {name!r} is missing; the shard has {', '.join(fields.names)}. "
                "Ingest again with the present schema."
            )
    numbers = [*labels, *(c for c in ("weight", "sampling_rate") if schema.has(c))]
    for name in numbers:
        kind = fields.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise _wrong(path, name, "numbers", kind)
    if fields.field("event_time").type != _TIME:
        raise _wrong(path, "event_time", str(_TIME), fields.field("event_time").type)
    if schema.has("query_id"):
        kind = fields.field("query_id").type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise _wrong(path, "query_id", "string", kind)
    encoder.encode(fields.empty_table(), source=str(path))


def late(where: str, by_us: int, allowed_us: int) -> StreamError:
    """Returns the error for event time that goes back too far."""
    return StreamError(
        f"{where}: event time goes back by {by_us / 1e6:,.6f} s, more than the allowed lateness "
        f"of {allowed_us / 1e6:g} s. Ingest the log again (it sorts), or raise "
        "--allowed-lateness-s."
    )


def _wrong(path: Path, name: str, expected: str, received: pa.DataType) -> SchemaError:
    return SchemaError(
        f"{path}: column {name!r}: expected {expected}, received {received}. Fix the writer, or "
        "ingest again."
    )


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
