import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.data import manifest
from ctr.errors import SchemaError, StreamError
from streaming.ingest import IngestOptions, ingest
from streaming.presets import load_preset
from streaming.source import load_source

SCHEMA = """
name = "t"
{top}
[columns]
example_id = "id"
event_time = "ts"
[source]
event_time = "s"
{source}
[[features]]
name = "user"
[[labels]]
name = "click"
"""
JOIN = """
[source.impressions]
input = "imp*.csv"
[[source.events]]
label = "click"
input = "clk*.csv"
window_s = 10
"""


@pytest.fixture
def log(tmp_path):
    """Makes a log folder; gives a function that ingests it."""
    folder = tmp_path / "log"
    folder.mkdir()

    def run(source="", top="", output="data", inputs=None, **options):
        (tmp_path / "schema.toml").write_text(SCHEMA.format(source=source, top=top))
        schema, parsed = load_source(tmp_path / "schema.toml")
        inputs = inputs or [str(folder)]
        return ingest(schema, parsed, inputs, tmp_path / output, IngestOptions(**options))

    run.folder = folder
    run.data = tmp_path / "data"
    return run


def read(data: Path) -> list[dict]:
    _, shards = manifest.load(data)
    return [row for shard in shards for row in pq.read_table(data / shard.file).to_pylist()]


def test_rows_come_out_in_event_time_order_ties_in_log_order(log):
    rows = [("a", 30), ("b", 10), ("c", 20), ("d", 10), ("e", 30)]
    text = "id,ts,user,click\n" + "".join(f"{i},{t},u,0\n" for i, t in rows)
    (log.folder / "a.csv").write_text(text)
    summary = log(shard_rows=2)
    assert [row["example_id"] for row in read(log.data)] == ["b", "d", "c", "a", "e"]
    _, shards = manifest.load(log.data)
    assert [shard.n_rows for shard in shards] == [2, 2, 1]
    assert [shard.max_time_us for shard in shards] == [10_000_000, 30_000_000, 30_000_000]
    for shard in shards:
        assert manifest.file_sha256(log.data / shard.file) == shard.sha256
        assert (log.data / shard.file).stat().st_size == shard.size_bytes
    assert summary.examples == 5
    assert json.loads((log.data / "summary.json").read_text())["examples"] == 5
    assert not (log.data / ".staging").exists()


@pytest.mark.parametrize("piece_bytes", [100, 1 << 20])
def test_many_equal_times_keep_the_order_of_the_log(log, piece_bytes):
    lines = [f"{i:04d},{(7 * i) % 3},u,0\n" for i in range(2000)]
    (log.folder / "a.csv").write_text("id,ts,user,click\n" + "".join(lines))
    log(piece_bytes=piece_bytes * 20, shard_rows=300)
    found = [(row["event_time"], row["example_id"]) for row in read(log.data)]
    assert found == sorted(found)
    assert len(found) == 2000


def test_events_are_joined_and_every_other_fate_is_counted(log):
    (log.folder / "imp-1.csv").write_text("id,ts,user\na,100,u\nb,101,u\nb,101,u\nc,102,u\n")
    (log.folder / "imp-2.csv").write_text("id,ts,user\nd,103,u\na,190,u\nbad,x,u\n")
    (log.folder / "clk-1.csv").write_text("id,ts\na,105\nb,112\nd,103\nd,103\nzz,104\nc,101\n")
    (log.folder / "clk-2.csv").write_text("id,ts\na,103\n,104\n")
    summary = log(JOIN, max_bad_fraction=0.5)
    rows = {row["example_id"]: row for row in read(log.data)}
    assert {i: row["click"] for i, row in rows.items()} == {"a": 1, "b": 0, "c": 0, "d": 1}
    assert rows["a"]["click_time"].timestamp() == 103
    assert rows["b"]["click_time"] is None
    assert summary.duplicates == 2
    assert summary.events["click"] == {
        "rows": 7, "joined": 2, "duplicates": 2, "outside_window": 2, "orphan": 1,
    }  # fmt: skip
    assert summary.rows_bad == 2


def test_dead_letters_hold_file_row_reason_and_text(log):
    (log.folder / "a.csv").write_text("id,ts,user,click\n1,5,u,0\n2,5,u,7\n3,5,u\n4,,u,1\n")
    summary = log(max_bad_fraction=0.9)
    table = pa.concat_tables(pq.read_table(p) for p in (log.data / "dead_letter").iterdir())
    assert table.to_pylist() == [
        {"file": "a.csv", "row": 3, "reason": "label 'click': not 0 or 1", "raw": "2,5,u,7"},
        {"file": "a.csv", "row": 4, "reason": "not the expected 4 fields", "raw": "3,5,u"},
        {"file": "a.csv", "row": 5, "reason": "event_time missing or unreadable", "raw": "4,,u,1"},
    ]
    assert (summary.rows_read, summary.rows_bad, summary.examples) == (4, 3, 1)


def test_too_many_bad_rows_leave_dead_letters_and_no_manifest(log):
    (log.folder / "a.csv").write_text("id,ts,user,click\n1,5,u,0\n2,5,u,7\n")
    with pytest.raises(StreamError, match=r"1 of 2 rows are bad \(50.00%\)"):
        log()
    assert [path.name for path in log.data.iterdir()] == ["dead_letter"]


def test_a_second_run_changes_nothing_and_another_log_is_refused(log):
    (log.folder / "a.csv").write_text("id,ts,user,click\n1,5,u,0\n2,6,u,1\n")
    log()
    before = {p: p.read_bytes() for p in log.data.rglob("*.[pj]*") if p.name != "summary.json"}
    log(piece_bytes=8)
    after = {p: p.read_bytes() for p in log.data.rglob("*.[pj]*") if p.name != "summary.json"}
    assert before == after
    (log.folder / "b.csv").write_text("id,ts,user,click\n3,5,u,0\n")
    with pytest.raises(StreamError, match="already holds another ingest"):
        log()
    assert {p: p.read_bytes() for p in before} == before
    log(overwrite=True)
    assert len(read(log.data)) == 3
    assert len(list((log.data / "shards").iterdir())) == 1


def test_another_schema_is_refused_before_anything_is_read(log):
    (log.folder / "a.csv").write_text("id,ts,user,click\n1,5,u,0\n")
    log()
    with pytest.raises(StreamError, match="already holds another ingest"):
        log(top='dedup = ["id"]')


def test_two_worker_processes_write_the_same_bytes(log):
    for part in range(3):
        rows = "".join(f"{i},{i * 7 % 1000},u{i % 5}\n" for i in range(part, 300, 3))
        (log.folder / f"imp{part}.csv").write_text("id,ts,user\n" + rows + rows)
    clicks = "".join(f"{i},{i * 7 % 1000 + i % 15}\n" for i in range(0, 330, 4))
    (log.folder / "clk.csv").write_text("id,ts\n" + clicks)
    runner = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    options = {"top": 'dedup = ["id"]', "piece_bytes": 900, "shard_rows": 64}
    log(JOIN, **options)
    summary = log(JOIN, output="other", runner_options=runner, **options)
    other = log.data.parent / "other"
    assert (log.data / "manifest.jsonl").read_bytes() == (other / "manifest.jsonl").read_bytes()
    assert summary.duplicates == 300
    assert sum(row["click"] for row in read(other)) > 20


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id,ts,user,click\n1,5,u,0\n2,6,,1\n"),
        ("a.tsv", b"id\tts\tuser\tclick\n1\t5\tu\t0\n2\t6\t\t1\n"),
        ("a.csv.gz", gzip.compress(b"id,ts,user,click\n1,5,u,0\n2,6,,1\n")),
        ("a.jsonl", b'{"id":1,"ts":5,"user":"u","click":0}\n{"id":2,"ts":6,"click":1}\n'),
    ],
    # Processes that share out the tests must agree on names, and gzip's bytes hold the time.
    ids=["csv", "tsv", "gzip", "jsonl"],
)
def test_formats_give_the_same_rows(log, name, content):
    (log.folder / name).write_bytes(content)
    log()
    rows = [(r["example_id"], r["event_time"].timestamp(), r["user"], r["click"])
            for r in read(log.data)]  # fmt: skip
    assert rows == [("1", 5, "u", 0), ("2", 6, None, 1)]


def test_a_json_key_may_be_absent_for_long_but_not_for_ever(log):
    lines = [f'{{"id":{i},"ts":{i},"click":0}}' for i in range(50)]
    (log.folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(SchemaError, match="there is no column 'user'"):
        log()
    lines.append('{"id":50,"ts":50,"click":1,"user":"u"}')
    (log.folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    log(piece_bytes=200)
    assert [row["user"] for row in read(log.data)] == [None] * 50 + ["u"]


def test_side_columns_keep_the_types_of_parquet_and_need_one_type(log):
    rows = {"id": [1], "ts": [5], "user": ["u"], "click": [0]}
    pq.write_table(pa.table({**rows, "cost": [7]}), log.folder / "a.parquet")
    log(top='side = ["cost"]')
    assert read(log.data)[0]["cost"] == 7
    pq.write_table(pa.table({**rows, "cost": [0.5]}), log.folder / "b.parquet")
    with pytest.raises(
        SchemaError, match=r"'cost' is int64 in a\.parquet but double in b\.parquet"
    ):
        log(top='side = ["cost"]', output="other")
    log('types = { cost = "float64" }', top='side = ["cost"]', output="other")
    assert [row["cost"] for row in read(log.data.parent / "other")] == [7.0, 0.5]


def test_side_columns_of_text_are_strings_unless_declared(log):
    text = '{"id":1,"ts":5,"user":"u","click":0,"cost":%s}\n'
    (log.folder / "a.jsonl").write_text(text % "7" + text % "0.5")
    log(top='side = ["cost"]', piece_bytes=60)
    assert [row["cost"] for row in read(log.data)] == ["7", "0.5"]
    with pytest.raises(SchemaError, match="received 'number'"):
        log('types = { cost = "number" }', top='side = ["cost"]', output="other")


def test_missing_column_is_found_before_the_pipeline_runs(log):
    (log.folder / "a.csv").write_text("id,ts,usr,click\n1,5,u,0\n")
    with pytest.raises(SchemaError, match=r"a\.csv: there is no column 'user': did you mean 'usr'"):
        log()
    assert not log.data.exists()


def test_a_type_that_cannot_fit(log):
    pq.write_table(pa.table({"id": [1], "ts": [5], "user": [1.5], "click": [0]}),
                   log.folder / "a.parquet")  # fmt: skip
    with pytest.raises(SchemaError, match=r"feature 'user' in a\.parquet.*received double"):
        log()


def test_empty_files(log):
    (log.folder / "a.csv").write_text("")
    with pytest.raises(StreamError, match="only 1 empty file"):
        log()
    (log.folder / "b.csv").write_text("id,ts,user,click\n")
    with pytest.raises(StreamError, match="holds no row"):
        log()
    (log.folder / "c.csv").write_text("id,ts,user,click\n1,5,u,0\n")
    assert log().files_empty == 1


def test_no_such_input(log):
    with pytest.raises(StreamError, match="no such file, folder or match"):
        log(inputs=["/nowhere/*.csv"])
    with pytest.raises(StreamError, match="no file of impressions"):
        log()


def parquet(path, groups):
    schema = pa.schema([("id", pa.int64()), ("ts", pa.int64()), ("user", pa.string()),
                        ("click", pa.int8())])  # fmt: skip
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for k in range(groups):
            ids = list(range(k * 200_000, (k + 1) * 200_000))
            table = {"id": ids, "ts": ids, "user": ["u"] * len(ids), "click": [0] * len(ids)}
            writer.write_table(pa.table(table, schema=schema))


def test_truncated_parquet_names_the_file(log):
    path = log.folder / "a.parquet"
    parquet(path, 1)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(StreamError, match=r"a\.parquet is not a whole Parquet file"):
        log()
    assert not log.data.exists()


def test_damage_found_by_a_worker_leaves_nothing(log):
    path = log.folder / "a.parquet"
    parquet(path, 2)
    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StreamError, match=r"a\.parquet is not a whole Parquet file.*--input\.$"):
        log()
    assert not log.data.exists()


def test_a_full_disk_is_told_and_leaves_nothing(log, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    (log.folder / "a.csv").write_text("id,ts,user,click\n1,5,u,0\n")
    monkeypatch.setattr("streaming.order_write.write_rows", full)
    with pytest.raises(StreamError, match=r"not be written below .*No space left on device\. "):
        log()
    assert not log.data.exists()


def test_an_output_that_cannot_be_a_folder(log):
    (log.folder / "a.csv").write_text("id,ts,user,click\n1,5,u,0\n")
    log.data.write_text("a file")
    with pytest.raises(StreamError, match="not be written below"):
        log()
    assert log.data.read_text() == "a file"


def test_leftovers_of_a_killed_run_are_cleared(log):
    (log.folder / "a.csv").write_text("id,ts,user,click\n1,5,u,0\n")
    for name in ("shards/00000-dead.parquet", "shards/.1-abc.tmp", ".staging/0.arrow"):
        path = log.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    log()
    assert len(list((log.data / "shards").iterdir())) == 1
    assert not (log.data / ".staging").exists()


def test_kuairand_as_it_is(shared_data, tmp_path):
    schema, source = load_preset("kuairand")
    folder = shared_data / "kuairand_pure"
    summary = ingest(schema, source, [str(folder)], tmp_path / "data")
    assert (summary.rows_read, summary.duplicates, summary.examples) == (228_329, 5_885, 222_444)
    assert summary.rows_bad == 0
    loaded, shards = manifest.load(tmp_path / "data")
    assert loaded == schema
    times = [t for shard in shards
             for t in pq.read_table(tmp_path / "data" / shard.file, columns=["event_time"])
             .column(0).cast(pa.int64()).to_pylist()]  # fmt: skip
    assert times == sorted(times)
    assert len(times) == 222_444
