from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ctr.data.shard_write import ROW_GROUP, write_rows


def test_rows_come_back_with_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "time": pa.array([1, 2, 3], pa.timestamp("us", "UTC")),
            "word": ["a", None, "a"],
            "tokens": [["x", "y"], [], None],
            "number": pa.array([0.5, None, 0.5], pa.float32()),
            "label": pa.array([0, 1, None], pa.int8()),
        }
    )
    write_rows(table, tmp_path / "shard.parquet")
    assert pq.read_table(tmp_path / "shard.parquet").equals(table)


def test_only_what_repeats_has_a_dictionary(tmp_path: Path) -> None:
    n = ROW_GROUP + 1
    columns = {
        "word": pa.repeat(pa.scalar("a"), n),
        "tokens": pa.repeat(pa.scalar(["x", "y"]), n),
        "number": pa.repeat(pa.scalar(0.5, pa.float32()), n),
        "label": pa.repeat(pa.scalar(1, pa.int8()), n),
        "time": pa.repeat(pa.scalar(1, pa.timestamp("us", "UTC")), n),
    }
    write_rows(pa.table(columns), tmp_path / "shard.parquet")
    meta = pq.ParquetFile(tmp_path / "shard.parquet").metadata
    assert meta.num_row_groups == 2
    group = meta.row_group(0)
    parts = [group.column(i) for i in range(group.num_columns)]
    coded = {p.path_in_schema.split(".")[0] for p in parts if p.has_dictionary_page}
    assert coded == {"word", "tokens", "label"}
    assert {p.compression for p in parts} == {"LZ4"}
