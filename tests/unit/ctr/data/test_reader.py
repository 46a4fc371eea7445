from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.data import manifest
from ctr.data.manifest import Shard, commit, file_sha256
from ctr.data.reader import ShardReader
from ctr.encoding import Encoder
from ctr.errors import CtrError, SchemaError, StreamError
from ctr.schema import Feature, Label, Schema

SCHEMA = Schema(
    "stream",
    (Feature("a"), Feature("x", kind="numeric")),
    (Label("click"),),
    columns={"weight": ("w",), "sampling_rate": ("s",), "query_id": ("q",)},
    slices=("a",),
)
SIZES = (70, 30, 25)
N = sum(SIZES)


def table(n: int, start: int) -> dict[str, pa.Array]:
    rows = np.arange(start, start + n)
    return {
        "example_id": pa.array([f"e{i}" for i in rows]),
        "event_time": pa.array(rows * 1_000_000).cast(pa.timestamp("us", "UTC")),
        "query_id": pa.array([f"q{i // 3}" for i in rows]),
        "weight": pa.array(np.full(n, 3.0, np.float32)),
        "sampling_rate": pa.array(np.full(n, 0.5, np.float32)),
        "a": pa.array([f"v{i % 7}" for i in rows]),
        "x": pa.array(rows.astype(np.float32), mask=rows % 10 == 0),
        "click": pa.array((rows % 2).astype(np.int8), mask=rows % 9 == 0),
    }


def write(folder: Path, tables: Sequence[dict[str, pa.Array]]) -> Path:
    (folder / "shards").mkdir(parents=True)
    shards = []
    for number, columns in enumerate(tables):
        file = folder / "shards" / f"{number}.parquet"
        pq.write_table(pa.table(columns), file, row_group_size=32)
        times = columns["event_time"].cast(pa.int64()).to_numpy()
        size, first, last = file.stat().st_size, int(times.min()), int(times.max())
        name = f"shards/{number}.parquet"
        shards.append(Shard(number, name, len(times), size, file_sha256(file), first, last, last))
    commit(folder, SCHEMA, shards)
    return folder


def tables() -> list[dict[str, pa.Array]]:
    starts = np.cumsum((0, *SIZES[:-1]))
    return [table(n, int(start)) for n, start in zip(SIZES, starts, strict=True)]


def reader(folder: Path, lateness_us: int = 0) -> ShardReader:
    schema, shards = manifest.load(folder)
    return ShardReader(folder, schema, shards, Encoder(schema, 1009), ("click",), lateness_us)


def read(folder: Path, shape: tuple[int, int] = (2, 8), start: int = 0, **options: int) -> list:
    return list(reader(folder, **options).chunks(shape, start))


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "stream", tables())


def test_rows_come_in_order_and_the_last_chunk_is_padded(stream: Path) -> None:
    chunks = read(stream)
    assert [c.start for c in chunks] == list(range(0, N, 16))
    assert [c.n_rows for c in chunks] == [16] * (N // 16) + [N % 16]
    last = chunks[-1].chunk((2, 8))
    assert last.weights.reshape(-1).tolist() == [6.0] * (N % 16) + [0.0] * (16 - N % 16)
    names = [x for c in chunks for b in c.blocks for x in b.frame.column("example_id").to_pylist()]
    assert names == [f"e{i}" for i in range(N)]


def test_values_arrive_as_declared(stream: Path) -> None:
    chunk = read(stream, (1, N))[0].chunk((1, N))
    rows = np.arange(N)
    np.testing.assert_array_equal(chunk.labels[0, :, 0], np.where(rows % 9 == 0, -1, rows % 2))
    np.testing.assert_array_equal(chunk.numeric[0, :, 0], np.where(rows % 10 == 0, np.nan, rows))
    encoded = Encoder(SCHEMA, 1009).encode(pa.table(table(N, 0)))
    np.testing.assert_array_equal(chunk.ids[0], encoded.ids)


@pytest.mark.parametrize("start", [0, 1, 31, 32, 33, 69, 70, 71, 100, 124])
def test_it_can_start_anywhere(stream: Path, start: int) -> None:
    whole = [b for c in read(stream, (1, 8)) for b in c.blocks]
    rest = [b for c in read(stream, (1, 8), start) for b in c.blocks]
    for part in ("ids", "numeric", "labels", "weights", "time_us", "query"):
        expected = np.concatenate([getattr(b, part) for b in whole])[start:]
        np.testing.assert_array_equal(np.concatenate([getattr(b, part) for b in rest]), expected)


def test_nothing_is_left_after_the_end(stream: Path) -> None:
    assert read(stream, start=N) == []


def test_no_shards_give_no_chunks(tmp_path: Path) -> None:
    assert read(write(tmp_path / "empty", [])) == []


def changed(folder: Path, shard: int, column: str, row: int, value: object) -> Path:
    """Writes the stream with one value replaced."""
    made = tables()
    values = made[shard][column].to_pylist()
    values[row] = value
    made[shard][column] = pa.array(values, made[shard][column].type)
    return write(folder / "changed", made)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("click", 2, r"1\.parquet, row 5: label 'click' must be 0 or 1, received 2"),
        ("weight", -1.0, r"1\.parquet, row 5: weight must be a finite number >= 0.*-1"),
        ("weight", float("nan"), r"row 5: weight .*nan"),
        ("weight", None, r"row 5: weight"),
        ("sampling_rate", 0.0, r"row 5: sampling_rate must be .*in \(0, 1\], received 0"),
        ("sampling_rate", 1.5, r"row 5: sampling_rate .*1\.5"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, column: str, value: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        read(changed(tmp_path, 1, column, 4, value))


@pytest.mark.parametrize("column", ["a", "x", "click", "weight", "event_time"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    folder = write(tmp_path / "data", tables())
    file = folder / "shards" / "1.parquet"
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    schema, shards = manifest.load(folder)
    whole = Shard(
        1, "shards/1.parquet", SIZES[1], file.stat().st_size, file_sha256(file),
        shards[1].min_time_us, shards[1].max_time_us, shards[1].watermark_us,
    )  # fmt: skip
    commit(folder, schema, [shards[0], whole, shards[2]])
    with pytest.raises(CtrError, match=rf"1\.parquet: .*column '{column}' is missing"):
        read(folder)


def test_a_truncated_shard(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", tables())
    file = folder / "shards" / "2.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StreamError, match=r"2\.parquet: damaged or truncated"):
        read(folder)


def test_a_flipped_bit(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", tables())
    file = folder / "shards" / "0.parquet"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(StreamError, match=r"0\.parquet: damaged"):
        read(folder)


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", tables())
    (folder / "shards" / "1.parquet").unlink()
    with pytest.raises(StreamError, match=r"1\.parquet is in the manifest but not on disk"):
        read(folder)


def late_by(folder: Path, seconds: int) -> Path:
    """Writes the stream with row 5 of the second shard standing back in time."""
    time = tables()[1]["event_time"].cast(pa.int64()).to_numpy()[3] - seconds * 1_000_000
    return changed(folder, 1, "event_time", 4, int(time))


def test_time_may_not_go_back(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"row 5: event time goes back by 2\.000000 s"):
        read(late_by(tmp_path, 2))


def test_time_may_go_back_as_far_as_allowed(tmp_path: Path) -> None:
    folder = late_by(tmp_path, 2)
    assert sum(c.n_rows for c in read(folder, lateness_us=2_000_000)) == N
    with pytest.raises(StreamError, match="allowed lateness of 1 s"):
        read(folder, lateness_us=1_000_000)


def test_shards_out_of_order(tmp_path: Path) -> None:
    made = tables()
    with pytest.raises(StreamError, match="event time goes back"):
        read(write(tmp_path / "data", [made[1], made[0], made[2]]))
