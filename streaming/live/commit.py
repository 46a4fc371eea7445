"""What makes the live join exactly once: shards, state and source offsets in one commit.

A commit is one file, ``DATA/live/commit.json``, put in place by a rename. It names the state
files, the offsets in the source up to which everything is in that state or in shards, and the
shards themselves. The manifest follows from it: a process that dies between the two leaves a
manifest that the next one completes. What no commit names does not count and is removed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ctr.data import manifest
from ctr.data.manifest import Shard, file_sha256, sync, write_atomically
from ctr.errors import ConfigError, StreamError
from ctr.schema import Schema, schema_to_dict
from streaming.live.attribution import JoinState
from streaming.live.rules import JoinRules
from streaming.live.source import Offsets
from streaming.order_write import SHARD_FOLDER

FOLDER = "live"
COMMIT = "commit.json"
_PARTS = ("held", "loose")


@dataclass(frozen=True)
class Progress:
    """Where a live join stands.

    Attributes:
        number: Commits so far.
        state: What the join holds.
        offsets: Places in the source.
        clocks: Newest event time by channel, microseconds.
        counts: What happened to rows so far.
        shards: All shards.
        closed: True if the stream has ended.
    """

    number: int = 0
    state: JoinState = field(default_factory=JoinState)
    offsets: Offsets = field(default_factory=dict)
    clocks: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    shards: tuple[Shard, ...] = ()
    closed: bool = False


class CommitLog:
    """Stores and restores the progress of a live join.

    Args:
        data_dir: The output folder.
        schema: Of the shards.
        rules: Of the join.
    """

    def __init__(self, data_dir: Path, schema: Schema, rules: JoinRules) -> None:
        self.data_dir, self.schema = data_dir, schema
        self.folder = data_dir / FOLDER
        identity = {"schema": schema_to_dict(schema), "rules": asdict(rules)}
        self._identity = json.loads(json.dumps(identity))

    def restore(self) -> Progress:
        """Returns the newest progress, after completing the manifest and removing remains.

        Raises:
            ConfigError: the folder holds an ingest, or a stream with other rules or schema.
            StreamError: files that the commit names are damaged.
        """
        file = self.folder / COMMIT
        if not file.is_file():
            if (self.data_dir / manifest.MANIFEST).is_file():
                raise ConfigError(
                    f"--output {self.data_dir} holds data of octr ingest. Choose another folder."
                )
            self._remove_remains({}, ())
            return Progress()
        try:
            record = json.loads(file.read_text())
        except ValueError as error:
            raise StreamError(f"{file} is damaged ({error}). Restore it.") from None
        if record["identity"] != self._identity:
            raise ConfigError(
                f"--output {self.data_dir} holds a stream with another schema or other rules "
                "(--wait-s, --lateness-s, --window-s). Use the same ones to go on, or another "
                "folder."
            )
        before: tuple[Shard, ...] = ()
        if (self.data_dir / manifest.MANIFEST).is_file():
            before = manifest.load(self.data_dir)[1]
        shards = (*before[: record["first_new"]], *(Shard(**s) for s in record["new_shards"]))
        if len(shards) != record["n_shards"]:
            raise StreamError(
                f"{self.data_dir / manifest.MANIFEST} has {len(before)} shards, but "
                f"{record['first_new']} were committed before the last time. Restore it."
            )
        if shards != before:
            manifest.commit(self.data_dir, self.schema, shards)
        if record["closed"]:
            (self.data_dir / manifest.CLOSED).touch()
        self._remove_remains(record["state"], shards)
        held, loose = (self._read(part, record["state"]) for part in _PARTS)
        return Progress(
            record["number"],
            JoinState(held, loose, record["clock_us"]),
            record["offsets"],
            record["clocks"],
            Counter(record["counts"]),
            shards,
            record["closed"],
        )

    def commit(self, progress: Progress, new_shards: Sequence[Shard]) -> Progress:
        """Makes progress permanent and its shards visible.

        Args:
            progress: What was reached; its ``number`` and ``shards`` are those before.
            new_shards: Shards that were written since.

        Returns:
            The progress with the new shards.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        number = progress.number + 1
        state = {part: self._write(part, number, getattr(progress.state, part)) for part in _PARTS}
        shards = (*progress.shards, *new_shards)
        record = {
            "identity": self._identity,
            "number": number,
            "clock_us": progress.state.clock_us,
            "offsets": progress.offsets,
            "clocks": progress.clocks,
            "counts": dict(progress.counts),
            "state": state,
            "n_shards": len(shards),
            "first_new": len(progress.shards),
            "new_shards": [asdict(shard) for shard in new_shards],
            "closed": progress.closed,
        }
        write_atomically(self.folder / COMMIT, json.dumps(record, indent=1).encode())
        sync(self.folder)
        if new_shards or number == 1:
            manifest.commit(self.data_dir, self.schema, shards)
        if progress.closed:
            (self.data_dir / manifest.CLOSED).touch()
        self._remove_states(state)
        return replace(progress, number=number, shards=shards)

    def _write(self, part: str, number: int, batch: pa.RecordBatch | None) -> dict[str, str] | None:
        if batch is None:
            return None
        path = self.folder / f"{part}-{number:09d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        sync(path)
        return {"file": path.name, "sha256": file_sha256(path)}

    def _read(self, part: str, state: dict[str, Any]) -> pa.RecordBatch | None:
        named = state[part]
        if named is None:
            return None
        path = self.folder / named["file"]
        if not path.is_file() or file_sha256(path) != named["sha256"]:
            raise StreamError(f"{path} is missing or damaged. Restore it, or use another folder.")
        with pa.OSFile(str(path)) as stream:
            return pa.ipc.open_file(stream.read_buffer()).get_batch(0)

    def _remove_states(self, state: dict[str, Any]) -> None:
        named = {entry["file"] for entry in state.values() if entry}
        for path in self.folder.glob("*-*.arrow"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _remove_remains(self, state: dict[str, Any], shards: Sequence[Shard]) -> None:
        """Removes what a process that died left behind."""
        self._remove_states(state)
        named = {Path(shard.file).name for shard in shards}
        for path in (self.data_dir / SHARD_FOLDER).glob("*.parquet"):
            if path.name not in named:
                path.unlink(missing_ok=True)
        for folder in (self.data_dir / SHARD_FOLDER, self.folder, self.data_dir):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
