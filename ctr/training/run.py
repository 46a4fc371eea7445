"""A run folder: what was asked for, under an identity that guards every resume."""

from __future__ import annotations

import json
import logging
import platform
import shutil
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ctr import __version__
from ctr.config import content_hash, to_plain
from ctr.data.manifest import MANIFEST, SCHEMA, Shard, write_atomically
from ctr.errors import CheckpointError, ConfigError
from ctr.recipe import Recipe
from ctr.schema import Schema, schema_from_dict, schema_to_dict
from ctr.training.lock import RunLock

log = logging.getLogger(__name__)

RUN = "run.json"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"
_PACKAGES = (
    "tensorflow", "tf_keras", "tensorflow-recommenders", "numpy", "pyarrow", "apache-beam"
)  # fmt: skip
#: Window lengths to choose from, in seconds.
_NICE_S = (0.001, 0.01, 0.1, 1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400,
           604800, 2592000, 31536000)  # fmt: skip
#: About this many windows fit the data when their length is chosen for the user.
_WINDOWS = 60


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of a run.

    Attributes:
        recipe_name: Name the recipe was asked for by.
        recipe: The recipe itself.
        seed: Decides every initial value.
        labels: Labels to learn; empty means the schema's first.
        window_s: Length of a metric window in seconds of event time; 0 chooses it from the data.
        warm_start: Checkpoint whose variables the run starts from; metrics start new.
        by_shard: True ends a chunk with each shard, so that a shard is learned when it is there.
    """

    recipe_name: str
    recipe: Recipe
    seed: int = 0
    labels: tuple[str, ...] = ()
    window_s: float = 0.0
    warm_start: str = ""
    by_shard: bool = False


@dataclass(frozen=True)
class RunFolder:
    """An opened run folder.

    Attributes:
        path: The folder.
        id: Content hash of configuration and schema.
        window_us: Length of a metric window, microseconds.
        record: What ``run.json`` says.
        lock: Held until the writer releases it or ends.
    """

    path: Path
    id: str
    window_us: int
    record: dict[str, Any] = field(repr=False)
    lock: RunLock = field(repr=False)


def open_run(
    path: Path, config: RunConfig, schema: Schema, shards: tuple[Shard, ...], data_dir: Path
) -> RunFolder:
    """Creates a run folder, or opens one that was made with the same configuration.

    A folder without a checkpoint has learned nothing that could be lost or mixed up, so it is
    made anew with whatever is asked for now.

    Raises:
        ConfigError: the folder belongs to a run with another configuration, to another process
            or to something else, or cannot be made.
        CheckpointError: it was trained with another schema, or its files are damaged.
    """
    _make_folder(path)
    lock = RunLock(path)
    plain = {"config": to_plain(config), "schema": schema.fingerprint()}
    run_id = content_hash(plain)
    if any((path / CHECKPOINTS).glob("step-*")):
        record = run_record(path)
        if record["schema"] != plain["schema"]:
            raise CheckpointError(
                f"{path} was trained with schema {record['schema']}, but {data_dir} has schema "
                f"{plain['schema']} ({schema.name}). Use the data it was trained on, or a new "
                "--run folder."
            )
        if record["id"] != run_id:
            changed = ", ".join(_differences(record["config"], plain["config"]))
            raise ConfigError(
                f"{path} holds a run with another configuration (differs in {changed}). Use a "
                "new --run folder, or the same options to resume."
            )
        _check_slices(path, schema, data_dir)
        _compare_versions(path, record)
        return RunFolder(path, run_id, record["window_us"], record, lock)
    shutil.rmtree(path / PREDICTIONS, ignore_errors=True)
    # With its schema a run can be loaded wherever its data are by then; it goes first, so that
    # a folder with a run.json has both.
    text = json.dumps(schema_to_dict(schema), indent=1, sort_keys=True)
    write_atomically(path / SCHEMA, text.encode())
    record = {
        "id": run_id,
        **plain,
        "schema_name": schema.name,
        "data": str(data_dir.resolve()),
        "window_us": _window_us(config.window_s, shards),
        "versions": versions(),
    }
    write_atomically(path / RUN, json.dumps(record, indent=1).encode())
    return RunFolder(path, run_id, record["window_us"], record, lock)


def run_record(path: Path) -> dict[str, Any]:
    """Reads ``run.json``.

    Raises:
        ConfigError: this is no run folder.
        CheckpointError: the file is damaged or was edited.
    """
    file = path / RUN
    if not file.is_file():
        raise ConfigError(f"{path} holds no {RUN}. Name a folder written by octr train.")
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        content = {"config": record["config"], "schema": record["schema"]}
        intact = content_hash(content) == record["id"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error!r}). Train into a new folder.") from None
    if not intact:
        raise CheckpointError(
            f"{file} no longer matches the id of its run, {record['id']}: it was edited. "
            "Restore it, or train into a new folder."
        )
    return record


def run_schema(path: Path) -> Schema:
    """Reads the schema a run was trained with.

    Raises:
        CheckpointError: the run folder holds none that can be read.
    """
    try:
        table = json.loads((path / SCHEMA).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path / SCHEMA} cannot be read ({error}). Restore it, or train into a new folder."
        ) from None
    return schema_from_dict(table, str(path / SCHEMA))


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide numbers."""
    found = {"online-ctr": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _make_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--run {path} is a file. Name a new folder, or the one of a run.")
    if (path / MANIFEST).exists():
        raise ConfigError(f"--run {path} is a folder of ingested data. Name another folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--run {path} cannot be made: {error.strerror}. Name a folder that can be written."
        ) from None


def _compare_versions(path: Path, record: dict[str, Any]) -> None:
    """Warns where the same bits can no longer be promised."""
    now, then = versions(), record["versions"]
    changed = [f"{k} {v} -> {now.get(k)}" for k, v in then.items() if now.get(k) != v]
    if changed:
        log.warning(
            "%s was begun with other versions (%s): it goes on, but numbers may differ in their "
            "last digits from an uninterrupted run.", path, ", ".join(changed),
        )  # fmt: skip


def _check_slices(path: Path, schema: Schema, data_dir: Path) -> None:
    """Refuses other slices: no fingerprint covers them, but calibrator and metrics hold them."""
    slices = run_schema(path).slices
    if slices != schema.slices:
        raise CheckpointError(
            f"{path} was trained with the slices {', '.join(slices) or 'none'}, but {data_dir} "
            f"has {', '.join(schema.slices) or 'none'}. Use a new --run folder."
        )


def _window_us(window_s: float, shards: tuple[Shard, ...]) -> int:
    if window_s:
        return max(1, round(window_s * 1e6))
    span_s = (shards[-1].max_time_us - shards[0].min_time_us) / 1e6 if shards else 0.0
    return round(min(_NICE_S, key=lambda s: abs(s * _WINDOWS - span_s)) * 1e6)


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in _differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
