import argparse
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.data.manifest import load
from ctr.simulator import WorldConfig, simulate_examples, simulated_schema, write_events

pytest.importorskip("apache_beam")
N, SEED = 30_000, 21
CONFIG = WorldConfig(malformed_rate=0.005, duplicate_rate=0.05, randomised=0.02)


def octr_ingest(*argv):
    from streaming import ingest_command

    parser = argparse.ArgumentParser()
    ingest_command.add_arguments(parser)
    args = parser.parse_args([str(a) for a in argv])
    args.runner_options = []
    return ingest_command.run(args)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("simulated")
    events, data = base / "events", base / "data"
    write_events(events, N, SEED, CONFIG)
    status = octr_ingest(*("--schema", events / "schema.toml", "--input", events, "--output", data))
    assert status == 0
    return events, data


def test_ingest_recovers_exactly_the_simulated_examples(folders):
    _, data = folders
    schema, shards = load(data)
    assert schema == simulated_schema(CONFIG)
    found = pa.concat_tables(pq.read_table(data / s.file) for s in shards)
    expected = simulate_examples(N, SEED, CONFIG).examples
    assert set(found.column_names) == set(expected.column_names)
    by_id = [("example_id", "ascending")]
    found = found.select(expected.column_names).sort_by(by_id)
    expected = expected.sort_by(by_id)
    for name in expected.column_names:
        assert found[name].combine_chunks().equals(expected[name].combine_chunks()), name


def test_ingest_counts_what_the_simulator_says_it_wrote(folders):
    events, data = folders
    world = json.loads((events / "world.json").read_text())
    summary = json.loads((data / "summary.json").read_text())
    logs = world["logs"]
    assert summary["examples"] == logs["impressions"]["unique"] == N
    assert summary["duplicates"] == logs["impressions"]["duplicates"]
    assert summary["rows_bad"] == sum(log["malformed"] for log in logs.values())
    for name, label in world["labels"].items():
        joined = summary["events"][name]
        assert joined["joined"] == summary["positives"][name] == label["positives"]
        assert joined["duplicates"] == logs[name]["duplicates"]
        assert joined["outside_window"] == label["late_events"]
        assert joined["orphan"] == 0
