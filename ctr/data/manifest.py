"""The manifest: which Parquet shards of a data folder count, and in which order.

A data folder holds ``schema.json``, ``manifest.jsonl`` and the shards it names. A shard that no
line names does not exist for a reader, so a crashed or retried writer leaves nothing behind that
could be seen twice. The manifest only grows, and every new state is put in place by one rename.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ctr.errors import StreamError
from ctr.schema import Schema, schema_from_dict, schema_to_dict

MANIFEST = "manifest.jsonl"
SCHEMA = "schema.json"
#: A file of this name says that a live stream has ended and no shard will follow.
CLOSED = "closed"


@dataclass(frozen=True)
class Shard:
    """One committed Parquet file, in event-time order inside and across shards.

    Attributes:
        sequence: Position in the stream, 0, 1, 2, ...
        file: Path relative to the data folder.
        n_rows: Rows in the file.
        size_bytes: Size of the file.
        sha256: Hex digest of the file's bytes.
        min_time_us: Smallest event time, microseconds since the epoch.
        max_time_us: Largest event time.
        watermark_us: No later shard holds an event time below this.
    """

    sequence: int
    file: str
    n_rows: int
    size_bytes: int
    sha256: str
    min_time_us: int
    max_time_us: int
    watermark_us: int


def file_sha256(path: Path) -> str:
    """Returns the hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file's or a folder's content is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Puts ``data`` at ``path`` so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def commit(data_dir: Path, schema: Schema, shards: Sequence[Shard]) -> None:
    """Writes the schema and the manifest; after this call the shards are visible to readers."""
    text = json.dumps(schema_to_dict(schema), indent=1, sort_keys=True)
    write_atomically(data_dir / SCHEMA, text.encode())
    lines = "".join(json.dumps(asdict(shard)) + "\n" for shard in shards)
    write_atomically(data_dir / MANIFEST, lines.encode())


def is_closed(data_dir: Path) -> bool:
    """Says whether a live stream into this folder has ended."""
    return (data_dir / CLOSED).exists()


def load(data_dir: str | Path) -> tuple[Schema, tuple[Shard, ...]]:
    """Reads a data folder's schema and committed shards, in stream order.

    Raises:
        StreamError: there is no manifest or schema, or a part is damaged or out of sequence.
    """
    data_dir = Path(data_dir)
    if not (data_dir / MANIFEST).is_file():
        raise StreamError(
            f"{data_dir} holds no {MANIFEST}. Point --data at a folder written by `octr ingest`."
        )
    try:
        table = json.loads((data_dir / SCHEMA).read_text(encoding="utf-8"))
        lines = (data_dir / MANIFEST).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError) as error:
        raise StreamError(
            f"{data_dir}: {SCHEMA} or {MANIFEST} cannot be read ({error}). Restore it or ingest "
            "again."
        ) from None
    schema = schema_from_dict(table, str(data_dir / SCHEMA))
    shards: list[Shard] = []
    for number, line in enumerate(lines, start=1):
        here = f"{data_dir / MANIFEST}, line {number}"
        try:
            shard = Shard(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise StreamError(f"{here}: not a shard entry ({error}). Ingest again.") from None
        if shard.sequence != len(shards):
            raise StreamError(
                f"{here}: sequence {shard.sequence} where {len(shards)} was due. The manifest "
                "was edited or cut; ingest again into an empty folder."
            )
        shards.append(shard)
    return schema, tuple(shards)
