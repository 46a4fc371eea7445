"""Kafka as a source, against the mock cluster inside librdkafka."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from ctr.data import manifest
from ctr.errors import ConfigError
from ctr.simulator import LabelSpec, WorldConfig, write_events
from streaming.live.driver import Driver, DriverOptions
from streaming.live.rules import join_rules
from streaming.source import load_source
from streaming.stage import Reading

kafka = pytest.importorskip("confluent_kafka")
from streaming.live.kafka_source import KafkaSource  # noqa: E402 (needs the package above)

WORLD = WorldConfig(
    days=0.1, n_users=200, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4, dim=4,
    labels=(LabelSpec("click", "commerce", 0.1, 1.0, False, 8.0, 1.6, 300.0),),
    duplicate_rate=0.05, malformed_rate=0.0,
)  # fmt: skip
N = 1500
TOPICS = {"impressions": "shown", "click": "clicks"}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "logs"
    write_events(folder, N, 3, WORLD)
    return folder


@pytest.fixture
def producer() -> kafka.Producer:
    """Owns the cluster: it is gone with the producer."""
    return kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})


def brokers(producer: kafka.Producer) -> str:
    found = producer.list_topics(timeout=20).brokers.values()
    return ",".join(f"{b.host}:{b.port}" for b in found)


def lines(logs: Path, stem: str) -> list[dict]:
    return pc.read_csv(logs / f"{stem}-00000.csv").to_pylist()


def send(producer: kafka.Producer, logs: Path, part: slice = slice(None)) -> None:
    for stem, topic in (("impressions", "shown"), ("events-click", "clicks")):
        rows = lines(logs, stem)[part]
        for row in rows:
            key = str(row["impression_id"]).encode()
            producer.produce(topic, json.dumps(row, default=str).encode(), key=key)
    assert producer.flush(30) == 0


def reading(logs: Path) -> Reading:
    schema, source = load_source(logs / "schema.toml")
    return Reading(schema, source, (), 1 << 20)


def driver(producer: kafka.Producer, logs: Path, data: Path, **options) -> Driver:
    how = reading(logs)
    rules = join_rules(how.schema, how.source, 60.0, 10**7, 600.0)
    source = KafkaSource(brokers(producer), TOPICS, how)
    given = DriverOptions(until_idle_s=2.0, channel_idle_s=60.0, disorder_s=600.0, **options)
    return Driver(how, source, data, rules, given)


def outcome(data: Path) -> tuple[list[str], int]:
    """Returns the examples' ids and the number of positives, corrections included."""
    _, shards = manifest.load(data)
    found = pa.concat_tables([pq.read_table(data / shard.file) for shard in shards])
    first = found.filter(pa.compute.equal(found.column("correction"), 0))
    return sorted(first.column("example_id").to_pylist()), found.column("click").to_pylist().count(
        1
    )


def truth(logs: Path) -> tuple[list[str], int]:
    shown = {row["impression_id"]: row["time_ms"] for row in lines(logs, "impressions")}
    clicked = {
        row["impression_id"]
        for row in lines(logs, "events-click")
        if 0 <= row["time_ms"] - shown[row["impression_id"]] <= 300_000
    }
    return sorted(map(str, shown)), len(clicked)


def test_offsets_go_with_the_shards(producer, logs: Path, tmp_path: Path) -> None:
    """A reader that dies is followed by one that knows nothing but the commit."""
    data = tmp_path / "data"
    send(producer, logs, slice(0, 700))
    one = driver(producer, logs, data, commit_rows=100, drain_bytes=1 << 15)
    for _ in range(4):
        one.step(timeout_s=5.0)
    assert one.progress.number >= 2
    committed = dict(one.progress.offsets)
    one.step(timeout_s=1.0)
    one._lock.release()  # as if it had been killed: nothing is closed, nothing committed
    assert 0 < sum(committed.values()) <= 700 + len(lines(logs, "events-click"))
    send(producer, logs, slice(700, None))
    two = driver(producer, logs, data)
    assert two.progress.offsets == committed
    two.run()
    assert outcome(data) == truth(logs)
    counts = two.progress.counts
    assert counts["impressions.duplicates"] == counts["impressions"] - N > 0


def test_poison_never_blocks(producer, logs: Path, tmp_path: Path) -> None:
    for poison in (b"\x00\xfe\xff", b"", b"{", b"[1]", b"\xff\xff\xff\xff broken arrow"):
        producer.produce("shown", poison)
        producer.produce("clicks", poison)
    producer.produce("shown", json.dumps({"impression_id": [1], "time_ms": 2}).encode())
    producer.produce("clicks", json.dumps({"impression_id": "7"}).encode())
    send(producer, logs)
    one = driver(producer, logs, tmp_path / "data")
    one.run()
    assert outcome(tmp_path / "data") == truth(logs)
    letters = [pq.read_table(p) for p in (tmp_path / "data" / "dead_letter").glob("*.parquet")]
    reasons = [r for t in letters for r in t.column("reason").to_pylist()]
    assert reasons.count("not a JSON object") == 6
    assert sum("damaged Arrow message" in r for r in reasons) == 2
    assert sum("time missing" in r for r in reasons) == 1
    assert sum("expected strings or integers" in r for r in reasons) == 1


def test_arrow_batches(producer, logs: Path, tmp_path: Path) -> None:
    for stem, topic in (("impressions", "shown"), ("events-click", "clicks")):
        table = pc.read_csv(logs / f"{stem}-00000.csv")
        for batch in table.to_batches(max_chunksize=200):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            producer.produce(topic, sink.getvalue().to_pybytes())
    assert producer.flush(30) == 0
    driver(producer, logs, tmp_path / "data").run()
    assert outcome(tmp_path / "data") == truth(logs)


def test_refusals(producer, logs: Path) -> None:
    how = reading(logs)
    at = brokers(producer)
    with pytest.raises(ConfigError, match="name the topics of click"):
        KafkaSource.from_url(f"kafka://{at}?impressions=shown", how)
    with pytest.raises(ConfigError, match="no topic is wanted for 'clik'"):
        KafkaSource.from_url(f"kafka://{at}?impressions=shown&clik=c", how)
    with pytest.raises(ConfigError, match="names no broker"):
        KafkaSource.from_url("kafka://?impressions=shown&click=c", how)
