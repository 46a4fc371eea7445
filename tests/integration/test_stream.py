"""``octr stream``: files that land in a folder become shards, each event once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.cli import main
from ctr.data import manifest
from ctr.errors import ConfigError
from ctr.simulator import WorldConfig, write_events
from streaming.live.dir_source import DirSource
from streaming.live.driver import Driver, DriverOptions
from streaming.live.rules import join_rules
from streaming.source import load_source
from streaming.stage import Reading

WORLD = WorldConfig(
    days=0.25, n_users=200, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4, dim=4
)
N = 3000


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "logs"
    write_events(folder, N, 7, WORLD)
    return folder


def driver(logs: Path, events: Path, data: Path, wait_s: float | None = None, **options) -> Driver:
    schema, source = load_source(logs / "schema.toml")
    reading = Reading(schema, source, (), 1 << 14)
    rules = join_rules(schema, source, wait_s, 3600.0, 600.0)
    given = DriverOptions(until_idle_s=0.01, channel_idle_s=0.5, **options)
    return Driver(reading, DirSource(events, reading), data, rules, given)


def rows(data: Path) -> pa.Table:
    _, shards = manifest.load(data)
    return pa.concat_tables([pq.read_table(data / shard.file) for shard in shards])


def names(data: Path) -> list[str]:
    return [shard.file for shard in manifest.load(data)[1]]


@pytest.fixture(scope="module")
def ingested(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    data = tmp_path_factory.mktemp("batch") / "data"
    args = ["--schema", str(logs / "schema.toml"), "--input", str(logs), "--output", str(data)]
    assert main(["ingest", *args]) == 0
    return rows(data).sort_by("example_id")


@pytest.fixture(scope="module")
def streamed(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("stream") / "data"
    driver(logs, logs, data, drain_bytes=1 << 15).run()
    return data


@pytest.fixture(scope="module")
def quick(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples leave after ten minutes, most of them before the log ends."""
    data = tmp_path_factory.mktemp("quick") / "data"
    driver(logs, logs, data, 600.0, drain_bytes=1 << 15).run()
    return data


def test_the_whole_window_gives_the_examples_of_ingest(streamed: Path, ingested: pa.Table) -> None:
    found = rows(streamed)
    assert set(found.column("correction").to_pylist()) == {0}
    found = found.drop_columns(["correction"]).sort_by("example_id")
    assert found.select(ingested.column_names).equals(ingested)
    times = rows(streamed).column("event_time").cast(pa.int64()).to_pylist()
    assert times == sorted(times)
    assert manifest.is_closed(streamed)
    assert len(names(streamed)) > 20


@pytest.mark.parametrize("size", [1 << 13, 1 << 20])
def test_drains_of_another_size_give_the_same_files(
    size, logs: Path, quick: Path, tmp_path
) -> None:
    driver(logs, logs, tmp_path / "d", 600.0, drain_bytes=size).run()
    assert names(tmp_path / "d") == names(quick)


def test_without_waiting_labels_follow_as_corrections(logs, ingested, tmp_path) -> None:
    data = tmp_path / "d"
    driver(logs, logs, data, wait_s=60.0).run()
    found = rows(data)
    again = found.filter(pa.compute.equal(found.column("correction"), 1))
    first = found.filter(pa.compute.equal(found.column("correction"), 0))
    assert first.num_rows == N
    assert again.num_rows > 20
    for label in ("click", "add_to_cart", "conversion"):
        in_all = sum(t.column(label).to_pylist().count(1) for t in (first, again))
        assert in_all == sum(ingested.column(label).to_pylist())


def test_broken_lines_are_dead_letters(streamed: Path, logs: Path) -> None:
    world = json.loads((logs / "world.json").read_text())
    broken = sum(log["malformed"] for log in world["logs"].values())
    letters = [pq.read_table(p) for p in sorted((streamed / "dead_letter").glob("*.parquet"))]
    assert sum(t.num_rows for t in letters) == broken > 0


def test_stop_and_go_with_files_that_come_later(logs: Path, quick: Path, tmp_path) -> None:
    landing, data = tmp_path / "in", tmp_path / "d"
    landing.mkdir()
    files = sorted(logs.glob("*.csv"), key=lambda p: p.name.startswith("impressions"))
    for file in files:
        (landing / file.name).symlink_to(file)
        one = driver(logs, landing, data, 600.0, drain_bytes=1 << 14)
        while one.step(timeout_s=0.0):
            pass
        one.run(lambda: True)
    driver(logs, landing, data, 600.0).run()
    assert names(data) == names(quick)


def test_after_its_end_a_stream_says_so(logs: Path, streamed: Path) -> None:
    before = (streamed / "live" / "commit.json").read_bytes()
    again = driver(logs, logs, streamed)
    again.run()
    assert again.progress.closed
    assert (streamed / "live" / "commit.json").read_bytes() == before


def test_a_commit_completes_the_manifest(logs: Path, quick: Path, tmp_path: Path) -> None:
    """A process that dies between the commit and the manifest."""
    data = tmp_path / "d"
    one = driver(logs, logs, data, 600.0, drain_bytes=1 << 14)
    while len(one.progress.shards) < 5 and one.step(timeout_s=0.0):
        pass
    one._lock.release()
    last = (data / "manifest.jsonl").read_bytes()
    record = json.loads((data / "live" / "commit.json").read_text())
    assert record["first_new"] < record["n_shards"]
    (data / "manifest.jsonl").write_bytes(
        b"".join(last.splitlines(keepends=True)[: record["first_new"]])
    )
    stray = data / "shards" / "9999999-stray.parquet"
    stray.write_bytes(b"half")
    driver(logs, logs, data, 600.0, drain_bytes=1 << 14).run()
    assert names(data) == names(quick)
    assert not stray.exists()


def test_refusals(logs: Path, streamed: Path, tmp_path: Path, ingested) -> None:
    with pytest.raises(ConfigError, match="other rules"):
        driver(logs, logs, streamed, wait_s=1.0)
    with pytest.raises(ConfigError, match="no such folder"):
        driver(logs, tmp_path / "none", tmp_path / "d")
    one = driver(logs, logs, tmp_path / "d")
    with pytest.raises(ConfigError, match="another process is joining into"):
        driver(logs, logs, tmp_path / "d")
    one.run(lambda: True)
    with pytest.raises(ConfigError, match="--disorder-s"):
        DriverOptions(disorder_s=-1.0)


def test_the_verb(logs: Path, tmp_path: Path) -> None:
    octr = Path(sys.executable).with_name("octr")
    args = ["--source", f"dir://{logs}", "--schema", str(logs / "schema.toml")]
    args += ["--output", str(tmp_path / "d"), "--until-idle-s", "0.1", "--window-s", "3600"]
    done = subprocess.run([octr, "stream", *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["examples"] == N
    assert told["closed"]
    bad = subprocess.run([octr, "stream", *args[2:], "--source", "ftp://x"], capture_output=True,
                         text=True)  # fmt: skip
    assert bad.returncode == 2
    assert "expected dir://FOLDER" in bad.stderr
