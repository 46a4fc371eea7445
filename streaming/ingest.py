"""Ingest from end to end: check the input, run the pipeline, then make its shards visible."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ctr.data import manifest
from ctr.data.manifest import Shard
from ctr.errors import CtrError, SchemaError, StreamError
from ctr.schema import Schema, schema_to_dict
from streaming import pipeline
from streaming.inputs import PIECE_BYTES, InputFile, cut_pieces, find_files, find_lookup
from streaming.lookup import SideTable
from streaming.order_write import SHARD_FOLDER
from streaming.pipeline import Places
from streaming.probe import probe
from streaming.source import Source
from streaming.stage import Reading
from streaming.summary import Summary, summarize

DEFAULT_SHARD_ROWS = 131_072
DEAD_FOLDER = "dead_letter"
STAGE_FOLDER = ".staging"
#: Input bytes per partition of the key space (some hundred thousand keys), and the most partitions.
_BYTES_PER_PARTITION = 1 << 27
_MAX_PARTITIONS = 256


@dataclass(frozen=True)
class IngestOptions:
    """What may be set for one run.

    Attributes:
        max_bad_fraction: Share of rows that may be bad.
        shard_rows: Rows per shard.
        overwrite: True replaces the ingest that the output folder holds.
        piece_bytes: Text bytes that one worker parses at a time.
        runner_options: Beam's own options, passed through.
    """

    max_bad_fraction: float = 0.01
    shard_rows: int = DEFAULT_SHARD_ROWS
    overwrite: bool = False
    piece_bytes: int = PIECE_BYTES
    runner_options: tuple[str, ...] = ()


def ingest(
    schema: Schema,
    source: Source,
    inputs: Sequence[str],
    data_dir: Path,
    options: IngestOptions | None = None,
) -> Summary:
    """Turns a raw log into a committed data folder.

    Args:
        schema: What the examples are.
        source: How the log is read.
        inputs: Files, folders or patterns.
        data_dir: The output folder.
        options: See :class:`IngestOptions`.

    Returns:
        What was read, dropped and written.

    Raises:
        SchemaError: the log lacks a column or has one of an impossible type.
        StreamError: nothing to read, a damaged file, too many bad rows, an output folder that
            cannot be written or holds another ingest. No manifest is left in these cases.
    """
    options = options or IngestOptions()
    started = time.monotonic()
    files, n_empty = find_files(list(inputs), source)
    tables = tuple(
        SideTable(lookup, tuple(find_lookup(lookup, list(inputs), source)), source)
        for lookup in source.lookups
    )
    reading = Reading(schema, source, tables, options.piece_bytes)
    probe(files, reading)
    _check_output(data_dir, schema, options.overwrite)
    with _writing(data_dir) as places:
        _say(f"reading {len(files)} file(s), {_bytes(files) / 1e6:,.1f} MB, into {data_dir}")
        pieces = cut_pieces(files, source, options.piece_bytes)
        n_partitions = min(1 + _bytes(files) // _BYTES_PER_PARTITION, _MAX_PARTITIONS)
        with _progress(places.stage, len(pieces)):
            counts, shards = pipeline.run(
                pieces, reading, places, n_partitions, options.shard_rows, options.runner_options
            )
        counts["files_empty"] = n_empty
        summary = summarize(schema, source, files, counts, shards, time.monotonic() - started)
        _check_counts(summary, places, options.max_bad_fraction)
        _commit(data_dir, schema, shards, options.overwrite)
        _publish_dead(places)
        text = json.dumps(asdict(summary), indent=1)
        manifest.write_atomically(data_dir / "summary.json", text.encode())
    return summary


def _bytes(files: Sequence[InputFile]) -> int:
    return sum(Path(file.path).stat().st_size for file in files)


def _check_output(data_dir: Path, schema: Schema, overwrite: bool) -> None:
    """Finds out before the long work that the folder holds the ingest of another schema."""
    if overwrite or not (data_dir / manifest.MANIFEST).is_file():
        return
    held, _ = manifest.load(data_dir)
    if schema_to_dict(held) != schema_to_dict(schema):
        raise _other_ingest(data_dir)


def _other_ingest(data_dir: Path) -> StreamError:
    return StreamError(
        f"--output {data_dir} already holds another ingest (other input, schema or options). "
        "Choose an empty folder, or replace it with --overwrite."
    )


@contextmanager
def _writing(data_dir: Path) -> Iterator[Places]:
    """Makes the folders, turns runner and disk errors into ours, and leaves no temporary file."""
    stage = data_dir / STAGE_FOLDER
    places = Places(data_dir, stage, stage / DEAD_FOLDER)
    before = _listing(data_dir / SHARD_FOLDER)
    committed = False
    try:
        shutil.rmtree(places.stage, ignore_errors=True)
        for folder in (data_dir, places.stage, places.dead, data_dir / SHARD_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
        yield places
        committed = True
    except CtrError:
        raise
    except OSError as error:
        raise _disk_error(data_dir, error.strerror or str(error)) from error
    except Exception as error:
        raise _translate(error, data_dir) from error
    finally:
        shutil.rmtree(places.stage, ignore_errors=True)
        if not committed:
            for name in _listing(data_dir / SHARD_FOLDER) - before:
                (data_dir / SHARD_FOLDER / name).unlink(missing_ok=True)
        for folder in (data_dir / SHARD_FOLDER, data_dir):
            _remove_if_empty(folder)


def _listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # not empty, or never made


def _translate(error: Exception, data_dir: Path) -> Exception:
    """Finds what went wrong inside the text of a runner's exception."""
    for name, message in pipeline.failures(error):
        kinds: dict[str, type[CtrError]] = {"SchemaError": SchemaError, "StreamError": StreamError}
        return kinds[name](message)
    text = str(error)
    for code in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EPERM):
        if f"[Errno {code}]" in text or f"[errno {code}]" in text:
            reason = text[text.lower().index(f"[errno {code}]") :].splitlines()[0]
            return _disk_error(data_dir, reason)
    return error


def _disk_error(data_dir: Path, reason: str) -> StreamError:
    return StreamError(
        f"a file could not be read, or not be written below {data_dir}: "
        f"{pipeline.without_step(reason)}. Nothing was committed. Free space or give rights, or "
        "choose another --output, and run again."
    )


def _publish_dead(places: Places) -> Path:
    """Puts this run's dead letters in the place of those of an earlier one."""
    dead_dir = places.data / DEAD_FOLDER
    shutil.rmtree(dead_dir, ignore_errors=True)
    places.dead.rename(dead_dir)
    _remove_if_empty(dead_dir)
    return dead_dir


def _check_counts(summary: Summary, places: Places, max_bad_fraction: float) -> None:
    rows, bad = summary.rows_read, summary.rows_bad
    if rows == 0:
        raise StreamError("the input holds no row (only headers). Check --input.")
    if bad > max_bad_fraction * rows:
        worst = max(summary.bad_by_reason, key=lambda reason: summary.bad_by_reason[reason])
        dead_dir = _publish_dead(places)
        raise StreamError(
            f"{bad:,} of {rows:,} rows are bad ({bad / rows:.2%}), above --max-bad-fraction "
            f"{max_bad_fraction:g}. Most frequent: {worst} ({summary.bad_by_reason[worst]:,} "
            f"rows). The rows are in {dead_dir}; no manifest was written. Fix the schema or the "
            "log, or raise the limit."
        )
    if summary.examples == 0:
        raise StreamError("no row of the input is an example. Check [source] and the adapter.")


def _commit(data_dir: Path, schema: Schema, shards: list[Shard], overwrite: bool) -> None:
    """Makes the shards visible, then removes shard files that no manifest names any more."""
    if (data_dir / manifest.MANIFEST).is_file():
        held = manifest.load(data_dir)[1]
        if held != tuple(shards) and not overwrite:
            raise _other_ingest(data_dir)
    manifest.commit(data_dir, schema, shards)
    named = {Path(shard.file).name for shard in shards}
    for name in _listing(data_dir / SHARD_FOLDER) - named:
        (data_dir / SHARD_FOLDER / name).unlink(missing_ok=True)


def _say(text: str) -> None:
    print(f"octr ingest: {text}", file=sys.stderr, flush=True)


@contextmanager
def _progress(stage_dir: Path, n_pieces: int, every_s: float = 5.0) -> Iterator[None]:
    """Reports every few seconds; counts files, as workers may be other processes."""
    done = threading.Event()

    def watch() -> None:
        shards_dir = stage_dir.parent / SHARD_FOLDER
        while not done.wait(every_s):
            parts = len(list(stage_dir.glob("[0-9]*.arrow")))
            shards = len(list(shards_dir.glob("[0-9]*.parquet")))
            _say(f"{parts} parts of about {n_pieces} pieces read, {shards} shards written")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
