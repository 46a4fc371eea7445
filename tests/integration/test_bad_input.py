"""``octr train`` on input it cannot use: a sentence, exit code 2, and a folder that can be used."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_harness import replace_shards, variables

from ctr.checkpoint import CheckpointStore
from ctr.cli import main
from ctr.data import manifest
from ctr.schema import schema_from_dict, schema_to_dict
from ctr.simulator import write_data

N_ROWS = 5000
OPTIONS = ("--recipe", "lr", "--batch-size", "32", "--set", "table_rows=4096")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "data"
    write_data(folder, N_ROWS, seed=2, shard_rows=2000)
    return folder


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """Data that a test may spoil."""
    return Path(shutil.copytree(data, tmp_path / "data"))


@pytest.fixture(scope="module")
def half(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first two shards."""
    part = Path(shutil.copytree(data, tmp_path_factory.mktemp("half") / "data"))
    schema, shards = manifest.load(part)
    manifest.commit(part, schema, shards[:2])
    run = part.parent / "run"
    assert main(["train", "--data", str(part), "--run", str(run), *OPTIONS]) == 0
    return run


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Trains, expects a refusal, and returns the message."""

    def train(data: Path, *options: str, run: Path | None = None) -> str:
        run = run or tmp_path / "run"
        capfd.readouterr()
        try:
            code: object = main(["train", "--data", str(data), "--run", str(run), *options])
        except SystemExit as usage:
            code = usage.code
        out, err = capfd.readouterr()
        assert code == 2
        assert out == ""
        assert "Traceback" not in err
        return err.splitlines()[-1]

    return train


def column(name: str, change: Callable[[pa.Array], pa.Array], shard: int = 1) -> Callable:
    """Returns a change of one column of one shard."""

    def rewrite(sequence: int, path: Path) -> None:
        if sequence == shard:
            table = pq.read_table(path)
            place = table.schema.get_field_index(name)
            changed = change(table.column(name).combine_chunks())
            pq.write_table(table.set_column(place, name, changed), path)

    return rewrite


def at(row: int, value: object) -> Callable[[pa.Array], pa.Array]:
    """Returns a change of one value."""

    def change(array: pa.Array) -> pa.Array:
        values = array.to_pylist()
        values[row] = value
        return pa.array(values, array.type)

    return change


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "model.hiden=[8]"], ["no field 'hiden'", "did you mean 'hidden'?"]),
        (["--set", "batchsize=8"], ["did you mean 'batch_size'?"]),
        (["--set", "model.dim=many"], ["expected int, received 'many'"]),
        (["--set", "model.dim=-4"], ["ConfigError", "dim", "-4"]),
        (["--set", "model.activation=rellu"], ["ConfigError", "rellu"]),
        (["--set", "table_rows=1"], ["table_rows at least 2"]),
        (["--recipe", "wide_dcnn"], ["no recipe 'wide_dcnn'", "did you mean 'wide_dcn'?"]),
        (["--labels", "clicks"], ["no label 'clicks'", "did you mean 'click'?"]),
        (["--labels", "click,click"], ["'click' is named twice"]),
        (["--warm-start", "nowhere"], ["nowhere", "checkpoint.json cannot be read"]),
        (["--checkpoint-every", "0"], ["--checkpoint-every", "expected an integer >= 1"]),
        (["--keep-checkpoints", "0"], ["--keep-checkpoints", "received '0'"]),
        (["--batch-size", "-8"], ["--batch-size", "received '-8'"]),
        (["--threads", "0"], ["--threads", "received '0'"]),
        (["--seed", "-1"], ["--seed", "expected an integer >= 0"]),
        (["--allowed-lateness-s", "nan"], ["--allowed-lateness-s", "received 'nan'"]),
        (["--window-s", "-1"], ["--window-s", "received '-1'"]),
    ],
)
def test_options(
    options: list[str], words: list[str], data: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    message = refused(data, *options)
    assert all(word in message for word in words), message
    assert not (tmp_path / "run").exists()


def empty(copy: Path) -> None:
    manifest.commit(copy, manifest.load(copy)[0], [])


def without_rows(copy: Path) -> None:
    replace_shards(copy, lambda _, path: pq.write_table(pq.read_table(path).slice(0, 0), path))


def drop_column(copy: Path) -> None:
    def rewrite(_: int, path: Path) -> None:
        pq.write_table(pq.read_table(path).drop_columns(["device"]), path)

    replace_shards(copy, rewrite)


def number_for_id(copy: Path) -> None:
    replace_shards(copy, column("user_id", lambda array: pa.array(np.arange(len(array)) * 0.5)))


def text_label(copy: Path) -> None:
    replace_shards(copy, column("click", lambda array: array.cast(pa.string())))


def text_number(copy: Path) -> None:
    replace_shards(copy, column("bid", lambda array: array.cast(pa.string())))


def seconds(copy: Path) -> None:
    replace_shards(
        copy, column("event_time", lambda a: a.cast(pa.timestamp("s", "UTC"), safe=False))
    )


def truncated(copy: Path) -> None:
    path = copy / manifest.load(copy)[1][1].file
    path.write_bytes(path.read_bytes()[:1000])


def flipped(copy: Path) -> None:
    path = copy / manifest.load(copy)[1][0].file
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


def committed_garbage(copy: Path) -> None:
    schema, shards = manifest.load(copy)
    path = copy / shards[0].file
    path.write_bytes(b"\0" * shards[0].size_bytes)
    manifest.commit(copy, schema, shards)


def missing_shard(copy: Path) -> None:
    (copy / manifest.load(copy)[1][2].file).unlink()


def swapped_lines(copy: Path) -> None:
    file = copy / "manifest.jsonl"
    first, second, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([second, first, *rest]))


def swapped_shards(copy: Path) -> None:
    first, second = (copy / shard.file for shard in manifest.load(copy)[1][:2])
    first.rename(copy / "aside")
    second.rename(first)
    (copy / "aside").rename(second)
    replace_shards(copy)


def damaged_schema(copy: Path) -> None:
    (copy / "schema.json").write_text("{")


@pytest.fixture
def refused_with(copy: Path, refused: Callable[..., str]) -> Callable[..., str]:
    """Trains on spoiled data and returns the message, which holds all of the words."""

    def check(words: list[str], spoil: Callable[[Path], None]) -> str:
        spoil(copy)
        message = refused(copy, *OPTIONS)
        assert all(word in message for word in words), message
        return message

    return check


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, ["holds no manifest.jsonl", "octr ingest"]),
        (damaged_schema, ["StreamError", "schema.json"]),
        (empty, ["holds no examples"]),
        (without_rows, ["holds no examples"]),
        (drop_column, ["SchemaError", "00000.parquet: column 'device' is missing"]),
        (number_for_id, ["feature 'user_id' in ", "00001.parquet", "received double"]),
        (text_number, ["feature 'bid' in ", "00001.parquet", "received string"]),
        (text_label, ["column 'click': expected numbers, received string"]),
        (seconds, ["column 'event_time': expected timestamp[us, tz=UTC]"]),
        (truncated, ["00001.parquet: damaged or truncated", "received 1,000"]),
        (missing_shard, ["00002.parquet is in the manifest but not on disk"]),
        (swapped_lines, ["manifest.jsonl, line 1: sequence 1 where 0 was due"]),
        (swapped_shards, ["event time goes back by", "--allowed-lateness-s"]),
    ],
)
def test_data_that_are_refused_before_anything_is_written(
    spoil: Callable[[Path], None],
    words: list[str],
    refused_with: Callable[..., str],
    tmp_path: Path,
) -> None:
    refused_with(words, spoil)
    assert not (tmp_path / "run").exists()


def label_of_two(copy: Path) -> None:
    replace_shards(copy, column("click", at(4, 2), shard=0))


def backwards(copy: Path) -> None:
    def swap(times: pa.Array) -> pa.Array:
        order = np.arange(len(times))
        order[[10, 900]] = [900, 10]
        return times.take(pa.array(order))

    replace_shards(copy, column("event_time", swap, shard=0))


def no_time(copy: Path) -> None:
    schema, shards = manifest.load(copy)
    replace_shards(copy, lambda *_: None)
    path = copy / shards[0].file
    table = pq.read_table(path)
    times = at(7, None)(table.column("event_time").combine_chunks())
    pq.write_table(table.set_column(1, "event_time", times), path)
    size, digest = path.stat().st_size, manifest.file_sha256(path)
    first = manifest.Shard(**{**vars(shards[0]), "size_bytes": size, "sha256": digest})
    manifest.commit(copy, schema, [first, *shards[1:]])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (label_of_two, ["00000.parquet, row 5: label 'click' must be 0 or 1, received 2"]),
        (backwards, ["00000.parquet, row 12: event time goes back", "--allowed-lateness-s"]),
        (no_time, ["00000.parquet, row 8: event_time is null"]),
        (flipped, ["00000.parquet: damaged: its SHA-256 is not"]),
    ],
)
def test_rows_that_are_refused_block_no_later_run(
    spoil: Callable[[Path], None],
    words: list[str],
    copy: Path,
    refused: Callable[..., str],
    refused_with: Callable[..., str],
    tmp_path: Path,
) -> None:
    message = refused_with(words, spoil)
    assert not (tmp_path / "run" / "checkpoints").exists()
    # The next attempt, with other options even, gets as far as this one.
    assert refused(copy, *OPTIONS, "--seed", "7") == message


def test_committed_garbage_is_named(copy: Path, refused: Callable[..., str]) -> None:
    committed_garbage(copy)
    message = refused(copy, *OPTIONS)
    assert "00000.parquet: not a readable Parquet file" in message


def test_option_of_the_message_helps(
    half: Path, copy: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    """The run goes on in the same folder, since lateness decides no number."""
    run = Path(shutil.copytree(half, tmp_path / "run"))
    replace_shards(copy, column("event_time", lambda times: times.take(late), shard=2))
    message = refused(copy, *OPTIONS)
    assert "00002.parquet, row " in message
    options = ["--allowed-lateness-s", "1e7"]
    assert main(["train", "--data", str(copy), "--run", str(run), *OPTIONS, *options]) == 0
    assert json.loads((run / "report.json").read_text())["examples"] == N_ROWS


#: The last shard's rows in reverse.
late = pa.array(np.arange(999, -1, -1))


def test_numbers_that_are_none_are_counted(copy: Path, tmp_path: Path) -> None:
    odd = pa.array([np.nan, np.inf, -np.inf, None] * 250 + [1.0] * 1000, pa.float32())
    replace_shards(copy, column("bid", lambda _: odd))
    run = tmp_path / "run"
    assert main(["train", "--data", str(copy), "--run", str(run), *OPTIONS]) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["examples"] == N_ROWS
    assert report["counts"]["numeric_nonfinite.bid"] == 750
    assert report["counts"]["numeric_missing.bid"] == 250
    assert 0.0 < report["metrics"]["lifetime"]["log_loss"] < 1.0
    checkpoint = CheckpointStore(run / "checkpoints").paths()[-1]
    model = {k: v for k, v in variables(checkpoint).items() if k.startswith("learner/model/")}
    assert model
    assert all(np.isfinite(np.frombuffer(value, np.float32)).all() for value in model.values())


def test_schema_that_does_not_match_the_checkpoint(
    half: Path, copy: Path, refused: Callable[..., str]
) -> None:
    schema, shards = manifest.load(copy)
    table = schema_to_dict(schema)
    table["features"] = table["features"][1:]
    manifest.commit(copy, schema_from_dict(table), shards)
    content = sorted(half.rglob("*"))
    message = refused(copy, *OPTIONS, run=half)
    assert "CheckpointError" in message
    assert "was trained with schema" in message
    assert sorted(half.rglob("*")) == content


def test_folders_that_cannot_be_run_folders(
    copy: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert "is a file" in refused(copy, *OPTIONS, run=tmp_path / "file")
    schema = (copy / "schema.json").read_bytes()
    assert "is a folder of ingested data" in refused(copy, *OPTIONS, run=copy)
    assert (copy / "schema.json").read_bytes() == schema
    message = refused(copy, *OPTIONS, run=Path("/proc/octr/run"))
    assert "--run /proc/octr/run cannot be made" in message
    assert "Name a folder that can be written" in message


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_checkpoint_that_cannot_be_written_leaves_the_older_ones(
    half: Path, data: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(half, tmp_path / "run"))
    kept = variables(CheckpointStore(run / "checkpoints").paths()[-1])
    with file_size_limit(20_000):
        message = refused(data, *OPTIONS, run=run)
    assert "CheckpointError" in message
    assert "run the same command again" in message
    (only,) = (run / "checkpoints").iterdir()
    assert variables(only) == kept
    assert main(["train", "--data", str(data), "--run", str(run), *OPTIONS]) == 0
    assert json.loads((run / "report.json").read_text())["examples"] == N_ROWS


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory, or changes how it is mounted."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mounted(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return folder

    yield mounted
    subprocess.run(["umount", str(folder)], capture_output=True)


def test_full_disk(
    half: Path, data: Path, refused: Callable[..., str], mount: Callable[[str], Path]
) -> None:
    disk = mount("size=4m")
    run = Path(shutil.copytree(half, disk / "run"))
    (disk / "ballast").write_bytes(b"\0" * (shutil.disk_usage(disk).free - 20_000))
    kept = variables(CheckpointStore(run / "checkpoints").paths()[-1])
    message = refused(data, *OPTIONS, run=run)
    assert "make room" in message.lower()
    (only,) = (run / "checkpoints").iterdir()
    assert variables(only) == kept

    (disk / "ballast").unlink()
    assert main(["train", "--data", str(data), "--run", str(run), *OPTIONS]) == 0
    assert json.loads((run / "report.json").read_text())["examples"] == N_ROWS


def test_read_only_disk(
    data: Path, refused: Callable[..., str], mount: Callable[[str], Path]
) -> None:
    disk = mount("size=1m,ro")
    message = refused(data, *OPTIONS, run=disk / "run")
    assert "cannot be made: Read-only file system. Name a folder that can be written." in message
    assert "cannot be written: Read-only file system" in refused(data, *OPTIONS, run=disk)
