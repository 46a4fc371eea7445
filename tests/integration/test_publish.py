"""``octr train --follow --export-to``: what is published when, and what an alarm holds back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash_harness import replace_shards

from ctr.data import manifest
from ctr.data.manifest import file_sha256
from ctr.errors import ConfigError
from ctr.health import HealthConfig
from ctr.simulator import WorldConfig, write_data
from ctr.testing.stream import tiny_recipe
from ctr.training.follow import Following, FollowTrainer
from ctr.training.publish import CANDIDATE, Publisher
from ctr.training.run import RunConfig
from ctr.training.status import read_status, status_lines
from serving.export import export_model
from serving.predictor import Predictor, read_manifest
from serving.versions import all_versions

#: Shards of 500 rows, half an hour of event time each: a window of the monitors per shard.
ROWS, SHARDS, MINUTES = 500, 24, 30.0
WORLD = WorldConfig(
    days=SHARDS * MINUTES / 1440, n_users=200, n_queries=32, n_ads=128, n_advertisers=16,
    n_topics=4, dim=4, daily_cycle=0.0, shift_logit=0.0,
)  # fmt: skip
FOLLOWING = Following(
    checkpoint_minutes=1.0, poll_s=0.02, health=HealthConfig(window=ROWS, burn_in=5)
)
#: Shards that a fault is in.
BROKEN = range(13, 15)


def flipped(table: pa.Table) -> pa.Table:
    clicks = pa.compute.subtract(pa.scalar(1, pa.int8()), table["click"])
    return table.set_column(table.schema.get_field_index("click"), "click", clicks)


def feature_gone(table: pa.Table) -> pa.Table:
    gone = pa.nulls(table.num_rows, pa.string())
    return table.set_column(table.schema.get_field_index("ad_id"), "ad_id", gone)


def write_stream(folder: Path, fault: Callable[[pa.Table], pa.Table] = lambda t: t) -> Path:
    write_data(folder, ROWS * SHARDS, 3, WORLD, shard_rows=ROWS)

    def change(sequence: int, path: Path) -> None:
        if sequence in BROKEN:
            pq.write_table(fault(pq.read_table(path)), path)

    replace_shards(folder, change)
    return folder


class InThisProcess:
    """Does what the export process does, without the seconds it takes to start one."""

    def __init__(self, command: list[str], **_: object) -> None:
        run, _, models = command[command.index("export") + 1 :]
        export_model(Path(run), Path(models))
        self.returncode = 0

    def poll(self) -> int:
        return 0

    def communicate(self) -> tuple[bytes, bytes]:
        return b"", b""


@dataclass
class Line:
    """A learner of a stream whose shards are let in one by one, each when the last is settled."""

    source: Path
    folder: Path
    every_minutes: float
    n_shards: int = SHARDS
    seen: list[tuple[int, list[str], dict]] = field(default_factory=list)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def go(self) -> None:
        schema, shards = manifest.load(self.source)
        shards = shards[: self.n_shards]
        data = self.folder / "data"
        data.mkdir(parents=True)
        (data / "shards").symlink_to(self.source / "shards")
        failures: list[BaseException] = []

        def produce() -> None:
            try:
                for k in range(1, len(shards) + 1):
                    manifest.commit(data, schema, shards[:k])
                    state = self._settled(k * ROWS)
                    versions = [path.name for path in all_versions(self.models)]
                    self.seen.append((k, versions, state))
            except BaseException as error:
                failures.append(error)
            finally:
                (data / manifest.CLOSED).touch()

        producer = threading.Thread(target=produce)
        producer.start()
        config = RunConfig("tiny", tiny_recipe(), window_s=3600.0, by_shard=True)
        publisher = Publisher(self.run, self.models, self.every_minutes)
        FollowTrainer(data, self.run, config, FOLLOWING, publisher=publisher).train()
        producer.join()
        assert not failures, failures

    def _settled(self, examples: int) -> dict:
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            if (self.run / "status.json").is_file():
                state = read_status(self.run)
                if state["examples"] == examples and not state["export"]["running"]:
                    return state
            time.sleep(0.01)
        raise AssertionError(f"no status at {examples:,} examples")


def check_version(version: Path) -> dict:
    """Every file is there as it was written, and the model answers."""
    about = read_manifest(version)
    for name, digest in about["files"].items():
        assert file_sha256(version / name) == digest
    assert Predictor.load(version).encoder.schema.fingerprint() == about["schema_fingerprint"]
    return about


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("sound")
    line = Line(write_stream(folder / "source"), folder, 4 * MINUTES, n_shards=7)
    line.go()
    return line


def test_a_version_every_so_many_minutes_of_event_time(sound: Line) -> None:
    grid_us = round(4 * MINUTES * 60e6)
    times = [check_version(path)["event_time_us"] for path in all_versions(sound.models)]
    slots = [time_us // grid_us for time_us in times]
    shards = manifest.load(sound.source)[1][: sound.n_shards]
    span = range(shards[0].max_time_us // grid_us, shards[-1].max_time_us // grid_us + 1)
    # One per slot from the first checkpoint on, at the first border of shards in it.
    assert slots == list(span)
    borders = [shard.max_time_us for shard in shards]
    for slot, found in list(zip(slots, times, strict=True))[1:]:
        assert found == min(us for us in borders if us // grid_us == slot)
    assert not (sound.run / CANDIDATE).exists()
    state = read_status(sound.run)["export"]
    assert state["exports"] == len(times)
    assert state["newest"]["event_time_us"] == times[-1]
    assert (state["paused"], state["failure"]) == (0, "")


@pytest.mark.parametrize(("fault", "monitor"), [(flipped, "base_rate"), (feature_gone, "ad_id")])
def test_an_alarm_pauses_publishing(fault, monitor: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ctr.training.publish.subprocess.Popen", InThisProcess)
    line = Line(write_stream(tmp_path / "source", fault), tmp_path, 3 * MINUTES)
    line.go()
    broken = [state for k, _, state in line.seen if k - 1 in BROKEN]
    assert all(any(monitor in alarm for alarm in state["alarms"]) for state in broken)
    assert "ALARM" in "\n".join(status_lines(broken[0]))
    before = next(versions for k, versions, _ in line.seen if k == BROKEN.start)
    assert before
    in_alarm = [(k, versions) for k, versions, state in line.seen if state["alarms"]]
    # The last good one stays, from the first broken shard until the alarm has ended.
    assert {tuple(versions) for _, versions in in_alarm} == {tuple(before)}
    assert in_alarm[-1][0] > BROKEN.stop
    last = line.seen[-1]
    assert last[2]["alarms"] == []
    assert len(last[1]) > len(before)
    assert last[2]["export"]["paused"] > 0
    abouts = [check_version(path) for path in all_versions(line.models)]
    _, shards = manifest.load(line.source)
    ends = {shard.max_time_us: shard.sequence for shard in shards}
    sequences = [ends[about["event_time_us"]] for about in abouts]
    assert not set(sequences) & {k - 1 for k, _ in in_alarm}
    assert max(sequences) > BROKEN.stop


class Export:
    """Stands in for the export process and notes what it was given."""

    def __init__(self, command: list[str], **_: object) -> None:
        run = Path(command[command.index("export") + 1])
        self.steps = [path.name for path in (run / "checkpoints").iterdir()]
        self.record = json.loads((run / "run.json").read_text())
        self.returncode = 0
        self.done = False
        exports.append(self)

    def poll(self) -> int | None:
        return 0 if self.done else None

    def communicate(self) -> tuple[bytes, bytes]:
        return b"", b""


exports: list[Export] = []


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    exports.clear()
    monkeypatch.setattr("ctr.training.publish.subprocess.Popen", Export)
    for name in ("run.json", "schema.json"):
        (tmp_path / name).write_text("{}")
    checkpoint(tmp_path, 1)
    return Publisher(tmp_path, tmp_path / "models", 1.0)


def checkpoint(run: Path, number: int) -> None:
    folder = run / "checkpoints" / f"step-{number:015d}"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")


MINUTE = 60_000_000


def test_what_was_learned_but_not_judged_is_not_published(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.offer(MINUTE, healthy=True)
    assert not exports
    # Learning goes on and makes newer checkpoints before the monitors have seen a window.
    checkpoint(tmp_path, 2)
    publisher.judged(healthy=True)
    assert exports[0].steps == ["step-000000000000001"]
    exports[0].done = True
    publisher.offer(2 * MINUTE, healthy=True)
    publisher.judged(healthy=False)
    assert len(exports) == 1
    assert publisher.state()["paused"] == 1
    publisher.offer(2 * MINUTE, healthy=True)
    publisher.judged(healthy=True)
    assert exports[1].steps == ["step-000000000000002"], "the slot is made up for"


def test_one_export_at_a_time(publisher: Publisher) -> None:
    publisher.offer(MINUTE, healthy=True)
    publisher.judged(healthy=True)
    publisher.offer(2 * MINUTE, healthy=True)
    publisher.judged(healthy=True)
    assert len(exports) == 1
    exports[0].done = True
    publisher.offer(2 * MINUTE, healthy=True)
    publisher.judged(healthy=True)
    assert len(exports) == 2
    assert publisher.state()["newest"] == {"event_time_us": MINUTE}
    publisher.offer(3 * MINUTE, healthy=True)
    publisher.finish()
    assert publisher.state()["exports"] == 2
    assert len(exports) == 2, "the end of a run is no judgement"


def test_refusal(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="export-minutes"):
        Publisher(tmp_path, tmp_path / "models", 0.0)
