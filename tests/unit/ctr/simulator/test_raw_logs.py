import collections
import csv
import json

import pyarrow.parquet as pq
import pytest

from ctr.errors import ConfigError
from ctr.schema import load_schema
from ctr.simulator import WorldConfig, simulate_examples, simulated_schema, write_events
from ctr.simulator import raw_logs as raw_logs_module

N = 60_000
CONFIG = WorldConfig(malformed_rate=0.01, duplicate_rate=0.03)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "events"
    write_events(folder, N, 9, CONFIG)
    return folder


@pytest.fixture(scope="module")
def world(events):
    return json.loads((events / "world.json").read_text())


def read_log(folder, stem):
    """Parses a log without the writer's help: good rows by line, and the broken lines."""
    good, broken = [], []
    for path in sorted(folder.glob(f"{stem}-*.csv")):
        with path.open(newline="") as stream:
            lines = list(csv.reader(stream))
        for fields in lines[1:]:
            row = dict(zip(lines[0], fields, strict=False))
            fits = len(fields) == len(lines[0]) and row["time_ms"].isdigit()
            (good if fits else broken).append(row)
    return good, broken


def stem(name):
    return name if name == "impressions" else f"events-{name}"


def test_counts_in_the_summary_are_those_of_the_files(events, world):
    assert set(world["logs"]) == {"impressions", *(label.name for label in CONFIG.labels)}
    for name, counts in world["logs"].items():
        good, broken = read_log(events, stem(name))
        per_id = collections.Counter(row["impression_id"] for row in good)
        assert len(broken) == counts["malformed"]
        assert len(per_id) == counts["unique"]
        assert len(good) - len(per_id) == counts["duplicates"]
        assert set(per_id.values()) <= {1, 2}
        newest = disorder = 0
        for row in good:
            disorder += int(row["time_ms"]) < newest
            newest = max(newest, int(row["time_ms"]))
        assert disorder == counts["out_of_order"]
        assert len(list(events.glob(f"{stem(name)}-*.csv"))) == counts["files"]


def test_faults_come_at_the_set_rates_and_in_every_kind(events, world):
    counts = world["logs"]["impressions"]
    assert counts["unique"] == N
    assert counts["malformed"] == pytest.approx(0.01 * N, rel=0.2)
    assert counts["duplicates"] == pytest.approx(0.03 * N, rel=0.1)
    assert counts["out_of_order"] > 0
    _, broken = read_log(events, "impressions")
    short = sum(len(row) < 15 for row in broken)
    garbled = sum("?" in row.get("time_ms", "") for row in broken)
    assert min(short, garbled, len(broken) - short - garbled) > 0.2 * len(broken)


def test_duplicates_repeat_their_line_exactly(events):
    good, _ = read_log(events, "impressions")
    first = {}
    for row in good:
        assert first.setdefault(row["impression_id"], row) == row


def test_disorder_is_bounded_by_the_jitter(events):
    good, _ = read_log(events, "impressions")
    newest = worst = 0
    for row in good:
        newest = max(newest, int(row["time_ms"]))
        worst = max(worst, newest - int(row["time_ms"]))
    # A repeat may be delayed twice.
    assert 0 < worst <= 2 * CONFIG.jitter_s * 1000


def test_joining_the_logs_by_hand_gives_the_simulated_examples(events, world):
    simulated = simulate_examples(N, 9, CONFIG).examples
    impressions = {row["impression_id"]: row for row in read_log(events, "impressions")[0]}
    assert impressions.keys() == set(simulated["example_id"].to_pylist())
    shown_ms = {key: int(row["time_ms"]) for key, row in impressions.items()}
    for label in CONFIG.labels:
        good, _ = read_log(events, f"events-{label.name}")
        event_ms = {row["impression_id"]: int(row["time_ms"]) for row in good}
        inside = {k for k, t in event_ms.items() if t - shown_ms[k] <= label.window_s * 1000}
        mask = simulated[label.name].to_numpy() == 1
        assert inside == set(simulated["example_id"].filter(mask).to_pylist())
        numbers = world["labels"][label.name]
        assert numbers["positives"] == len(inside)
        assert numbers["events"] == len(event_ms)
        assert numbers["late_events"] == len(event_ms) - len(inside)


def test_features_in_the_log_are_those_of_the_examples(events):
    rows = {row["impression_id"]: row for row in read_log(events, "impressions")[0]}
    for example in simulate_examples(N, 9, CONFIG).examples.slice(1_000, 200).to_pylist():
        row = rows[example["example_id"]]
        for name in ("user_id", "ad_id", "query_text", "ad_title", "device", "treatment"):
            assert row[name] == example[name]
        assert row["position"] == example["slot"] == str(example["position"])
        assert row["page_id"] == example["query_id"]
        assert float(row["price"]) == pytest.approx(example["price"], rel=1e-6)
        assert int(row["time_ms"]) == round(example["event_time"].timestamp() * 1000)


def test_truth_is_beside_the_logs_and_not_in_them(events):
    truth = pq.read_table(events / "truth" / "truth.parquet")
    assert truth.equals(simulate_examples(N, 9, CONFIG).truth)
    header = next(events.glob("impressions-*.csv")).read_text().splitlines()[0].split(",")
    assert not [n for n in header if n.startswith("p_") or "logit" in n or "label" in n]


def test_schema_file_reads_back_as_the_schema(events):
    assert load_schema(events / "schema.toml") == simulated_schema(CONFIG)


def test_bayes_log_loss_is_that_of_the_truth(world):
    for numbers in world["labels"].values():
        assert numbers["bayes_log_loss"] < 0.95 * numbers["base_log_loss"]
        assert numbers["mean_probability"] == pytest.approx(numbers["base_rate"], rel=0.35)


def test_equal_arguments_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write_events(tmp_path / name, 20_000, 2)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 10
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_long_logs_go_on_in_further_files_with_a_header(tmp_path, monkeypatch):
    monkeypatch.setattr("ctr.simulator.event_log.FILE_LINES", 10_000)
    world = write_events(tmp_path / "events", 140_000, 3)
    files = sorted((tmp_path / "events").glob("impressions-*.csv"))
    assert len(files) == world["logs"]["impressions"]["files"] == 3
    assert len({f.read_text().split("\n", 1)[0] for f in files}) == 1


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "old.csv").write_text("x")
    with pytest.raises(ConfigError, match="is in use"):
        write_events(tmp_path, 100, 0)


def test_a_failed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(config):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(raw_logs_module, "schema_toml", broken)
    with pytest.raises(OSError, match="No space left"):
        write_events(tmp_path / "events", 1_000, 0)
    assert list(tmp_path.iterdir()) == []
