import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.data.manifest import file_sha256, load
from ctr.errors import ConfigError, StreamError
from ctr.simulator import WorldConfig, simulate_examples, simulated_schema, write_data

US = pa.timestamp("us", tz="UTC")


def test_columns_are_those_of_an_ingested_shard(simulated):
    schema, types = simulated.schema, simulated.examples.schema
    assert types.field("example_id").type == pa.string()
    assert types.field("event_time").type == US
    assert types.field("query_id").type == pa.string()
    assert types.field("position").type == pa.int32()
    for feature in schema.features:
        expected = pa.float32() if feature.kind == "numeric" else pa.string()
        assert types.field(feature.name).type == expected
    for label in schema.labels:
        assert types.field(label.name).type == pa.int8()
        assert types.field(f"{label.name}_time").type == US
    known = {"example_id", "event_time", "query_id", "position"}
    known |= {f.name for f in schema.features}
    known |= {n for x in schema.labels for n in (x.name, f"{x.name}_time")}
    assert set(types.names) == known


def test_rows_are_unique_in_time_order_and_match_the_truth(simulated):
    ids = simulated.examples["example_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 240_000
    assert ids == simulated.truth["example_id"].to_pylist()
    time_us = simulated.examples["event_time"].cast("int64").to_numpy()
    assert (np.diff(time_us) >= 0).all()


def test_label_times_are_set_exactly_where_the_label_is_one(simulated, labels, config):
    event_us = simulated.examples["event_time"].cast("int64").to_numpy()
    for label in config.labels:
        column = simulated.examples[f"{label.name}_time"]
        valid = column.is_valid().to_numpy()
        np.testing.assert_array_equal(valid, labels[label.name] == 1)
        delay_s = (column.cast("int64").drop_null().to_numpy() - event_us[valid]) / 1e6
        assert delay_s.min() >= 0
        assert delay_s.max() <= label.window_s


def test_equal_arguments_give_equal_tables_and_other_seeds_others():
    one, two = simulate_examples(70_001, 5), simulate_examples(70_001, 5)
    assert one.examples.equals(two.examples)
    assert one.truth.equals(two.truth)
    assert one.examples.num_rows == 70_001
    assert not simulate_examples(70_001, 6).truth.equals(one.truth)


def test_written_data_are_the_simulated_examples_in_committed_shards(tmp_path):
    schema = write_data(tmp_path / "data", 10_000, 4, shard_rows=3_000)
    loaded, shards = load(tmp_path / "data")
    assert loaded == schema == simulated_schema(WorldConfig())
    assert [s.n_rows for s in shards] == [3_000, 3_000, 3_000, 1_000]
    tables = [pq.read_table(tmp_path / "data" / s.file) for s in shards]
    simulated = simulate_examples(10_000, 4)
    assert pa.concat_tables(tables).equals(simulated.examples)
    assert pq.read_table(tmp_path / "data" / "truth" / "truth.parquet").equals(simulated.truth)
    for shard, table in zip(shards, tables, strict=True):
        path = tmp_path / "data" / shard.file
        times = table["event_time"].cast("int64").to_pylist()
        assert (shard.min_time_us, shard.max_time_us) == (min(times), max(times))
        assert (shard.sha256, shard.size_bytes) == (file_sha256(path), path.stat().st_size)


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StreamError, match="is not empty"):
        write_data(tmp_path, 100, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (-5, 0), (10, -1)])
def test_numbers_out_of_range_are_refused(n, seed):
    with pytest.raises(ConfigError, match="expected"):
        simulate_examples(n, seed)


def test_a_single_impression_can_be_simulated():
    assert simulate_examples(1, 0).examples.num_rows == 1
