"""What a live stream meets: clocks that are wrong, all data at once, files that are moved away."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.data import manifest
from ctr.data.reader import ShardReader
from ctr.simulator import WorldConfig, write_data, write_events
from ctr.testing.stream import tiny_recipe
from ctr.training.follow import Following, FollowTrainer
from ctr.training.run import RunConfig
from ctr.training.status import read_status, status_lines
from streaming.live.dir_source import DirSource
from streaming.live.driver import Driver, DriverOptions
from streaming.live.rules import join_rules
from streaming.source import load_source
from streaming.stage import Reading

HOURS = 6
WORLD = WorldConfig(
    days=HOURS / 24, n_users=200, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4, dim=4,
    malformed_rate=0.0, duplicate_rate=0.0,
)  # fmt: skip
N, HOUR_MS, LATENESS_S = 2000, 3_600_000, 3600.0


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditions") / "logs"
    write_events(folder, N, 7, WORLD)
    return folder


@pytest.fixture(scope="module")
def start_ms(logs: Path) -> int:
    return min(times(logs / "impressions-00000.csv"))


@pytest.fixture(scope="module")
def calm(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    data = tmp_path_factory.mktemp("calm") / "data"
    driver(logs, logs, data).run()
    return rows(data)


def driver(logs: Path, landing: Path, data: Path, **options) -> Driver:
    schema, source = load_source(logs / "schema.toml")
    reading = Reading(schema, source, (), 1 << 14)
    rules = join_rules(schema, source, 600.0, LATENESS_S, 600.0)
    options = {"drain_bytes": 1 << 14, "ahead_s": 1e9} | options
    given = DriverOptions(until_idle_s=0.01, channel_idle_s=600.0, **options)
    return Driver(reading, DirSource(landing, reading), data, rules, given)


def times(log: Path) -> list[int]:
    with log.open() as stream:
        return [int(row["time_ms"]) for row in csv.DictReader(stream)]


def rows(data: Path) -> pa.Table:
    _, shards = manifest.load(data)
    found = pa.concat_tables([pq.read_table(data / shard.file) for shard in shards])
    return found.sort_by([("example_id", "ascending"), ("correction", "ascending")])


def letters(data: Path) -> list[str]:
    tables = [pq.read_table(p) for p in sorted((data / "dead_letter").glob("*.parquet"))]
    return [reason for table in tables for reason in table.column("reason").to_pylist()]


def land(logs: Path, landing: Path, part: str, wanted: Callable[[str, int], bool]) -> int:
    """Lets the lines land of which ``wanted(log, time_ms)``; returns how many impressions."""
    landing.mkdir(exist_ok=True)
    n = 0
    for log in sorted(logs.glob("*.csv")):
        head, *lines = log.read_text().splitlines(keepends=True)
        kept = [line for line, ms in zip(lines, times(log), strict=True) if wanted(log.name, ms)]
        n += len(kept) * log.name.startswith("impressions")
        if kept:
            hidden = landing / f".{part}"
            hidden.write_text(head + "".join(kept))
            hidden.rename(landing / f"{log.stem}-{part}.csv")
    return n


def drain(one: Driver) -> None:
    while one.step(timeout_s=0.0):
        pass


@pytest.mark.parametrize(("ahead_s", "refused"), [(0.0, True), (7 * 86_400.0, False)])
def test_event_times_ahead_of_the_wall_clock(
    ahead_s, refused, logs, start_ms, calm, tmp_path, monkeypatch
) -> None:
    """The wall clock stands still in the middle of the log, whose conversions take days."""
    now_ms = start_ms + HOURS * HOUR_MS // 2
    monkeypatch.setattr("streaming.live.driver.wall_clock_us", lambda: now_ms * 1000)
    one = driver(logs, logs, tmp_path / "d", ahead_s=ahead_s)
    one.run()
    reasons = letters(tmp_path / "d")
    late = sum(ms > now_ms for log in logs.glob("*.csv") for ms in times(log))
    assert set(reasons) == ({"event_time is in the future"} if refused else set())
    assert len(reasons) == (late if refused else 0)
    found = rows(tmp_path / "d")
    # What is refused does not move the clock: nobody else comes too late for it.
    assert one.progress.counts["impressions.late"] == 0
    if not refused:
        assert found.equals(calm)
        return
    kept = pa.compute.less_equal(calm.column("event_time").cast(pa.int64()), now_ms * 1000)
    first = found.filter(pa.compute.equal(found.column("correction"), 0))
    before = calm.filter(pa.compute.and_(kept, pa.compute.equal(calm.column("correction"), 0)))
    assert first.column("example_id").equals(before.column("example_id"))


@pytest.mark.parametrize(("back_h", "accepted"), [(0.75, True), (2.5, False)])
def test_a_source_whose_clock_falls_back(back_h, accepted, logs, start_ms, calm, tmp_path) -> None:
    """A stretch of half an hour comes when the clock is further on, impressions and events."""
    low = start_ms + HOUR_MS
    stretch = range(low, low + HOUR_MS // 2)
    now = stretch.stop + round((back_h - 0.5) * HOUR_MS)
    landing, data = tmp_path / "in", tmp_path / "d"

    def held_back(log: str, ms: int) -> bool:
        return log.startswith("impressions") and ms in stretch

    land(logs, landing, "a", lambda log, ms: ms < now and not held_back(log, ms))
    one = driver(logs, landing, data)
    drain(one)
    n = land(logs, landing, "b", held_back)
    assert n > 50
    drain(one)
    land(logs, landing, "c", lambda log, ms: ms >= now)
    one.run()
    counts = one.progress.counts
    if accepted:
        assert rows(data).equals(calm)
        assert letters(data) == []
        return
    assert counts["impressions.late"] == n
    assert set(letters(data)) == {"too late: behind the clock by the lateness"}
    missing = {str(k) for k in calm.column("example_id").to_pylist()}
    missing -= set(rows(data).column("example_id").to_pylist())
    assert len(missing) == n, "everybody else is there"
    assert counts["impressions"] == counts["examples"] + counts["impressions.late"]


def test_everything_at_once_is_taken_in_portions(logs, calm, tmp_path) -> None:
    one = driver(logs, logs, tmp_path / "d", commit_rows=200)
    taken, commit = [], one._commit

    def note(until_us: int) -> None:
        taken.append(one._intake.n_rows)
        commit(until_us)

    one._commit = note  # type: ignore[method-assign]
    one.run()
    # A drain of 16 KiB and one piece more hold no more than this many short lines.
    assert max(taken) < 200 + 2 * (1 << 14) // 15
    assert len(taken) > 5
    assert rows(tmp_path / "d").equals(calm)


def test_files_may_go_when_they_are_read(logs, calm, tmp_path) -> None:
    landing, data = tmp_path / "in", tmp_path / "d"
    cut = sorted(times(logs / "impressions-00000.csv"))[N // 2]
    land(logs, landing, "1", lambda log, ms: ms < cut)
    one = driver(logs, landing, data)
    drain(one)
    one._commit(one.progress.state.clock_us)
    one._lock.release()
    for number, file in enumerate(sorted(landing.iterdir())):
        if number % 2:
            file.unlink()
        else:  # as log rotation does
            file.rename(file.with_name(f"{file.name}.1"))
    land(logs, landing, "2", lambda log, ms: ms >= cut)
    two = driver(logs, landing, data)
    two.run()
    assert rows(data).equals(calm)


def test_a_file_that_is_read_under_another_name_only_repeats(logs, calm, tmp_path) -> None:
    landing, data = tmp_path / "in", tmp_path / "d"
    late = max(times(logs / "impressions-00000.csv")) - HOUR_MS // 4
    land(logs, landing, "1", lambda log, ms: ms < late)
    land(logs, landing, "2", lambda log, ms: ms >= late)
    one = driver(logs, landing, data)
    drain(one)
    file = landing / "impressions-00000-2.csv"
    file.rename(landing / "impressions-00000-again.csv")
    one.run()
    assert one.progress.counts["impressions.duplicates"] == len(times(logs.joinpath(
        "impressions-00000.csv"))) - sum(ms < late for ms in times(
        logs / "impressions-00000.csv")) > 0  # fmt: skip
    assert rows(data).equals(calm)


def test_a_learner_reads_no_further_than_the_shard_it_learns(tmp_path, monkeypatch) -> None:
    """However many shards were committed while it was away."""
    write_data(tmp_path / "data", 6000, seed=5, shard_rows=150)
    (tmp_path / "data" / manifest.CLOSED).touch()
    config = RunConfig("tiny", tiny_recipe(), window_s=3600.0, by_shard=True)
    trainer = FollowTrainer(tmp_path / "data", tmp_path / "run", config, Following(poll_s=0.01))
    assert len(trainer.reader.shards) == 40
    read, ahead = [0], []
    shard_blocks = ShardReader._shard_blocks

    def note(self, shard, skip):
        for found in shard_blocks(self, shard, skip):
            read[0] += len(found[1].time_us)
            ahead.append(read[0] - trainer.position)
            yield found

    monkeypatch.setattr(ShardReader, "_shard_blocks", note)
    trainer.train()
    assert read[0] == trainer.position == 6000
    assert max(ahead) <= 150


def test_status_of_data_that_are_ahead_of_this_clock(tmp_path: Path) -> None:
    write_data(tmp_path / "data", 300, seed=5, config=WorldConfig(start="2199-01-01", days=0.1))
    (tmp_path / "data" / manifest.CLOSED).touch()
    config = RunConfig("tiny", tiny_recipe(), window_s=3600.0, by_shard=True)
    FollowTrainer(tmp_path / "data", tmp_path / "run", config, Following(poll_s=0.01)).train()
    lines = status_lines(read_status(tmp_path / "run"))
    told = next(line for line in lines if line.startswith("data age"))
    assert "ahead of this clock" in told
