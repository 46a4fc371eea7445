"""``octr score``: the same scores as the predictor's, row by row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.cli import main
from ctr.errors import ConfigError, SchemaError, StreamError
from serving.predictor import Predictor
from streaming.score import score


@pytest.fixture(scope="module")
def rows(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of several row groups, with columns that are no features."""
    folder = tmp_path_factory.mktemp("rows")
    table = pa.concat_tables(
        [pq.read_table(shard) for shard in sorted((data / "shards").glob("*.parquet"))],
        promote_options="default",
    )
    pq.write_table(table.slice(0, 2500), folder / "a.parquet", row_group_size=1000)
    pq.write_table(table.slice(2500, 500), folder / "b.parquet")
    return folder


def test_the_same_scores_in_the_same_rows(version: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["score", str(version.parent), "--input", str(rows), "--output", str(out)]
    assert main(argv) == 0
    parts = sorted(out.glob("*.parquet"))
    assert [part.name for part in parts] == [
        "part-00000-00000.parquet", "part-00000-00001.parquet", "part-00000-00002.parquet",
        "part-00001-00000.parquet",
    ]  # fmt: skip
    found = pa.concat_tables([pq.read_table(part) for part in parts])
    given = pa.concat_tables([pq.read_table(rows / f"{name}.parquet") for name in "ab"])
    assert found.drop_columns(["prob_click"]).equals(given)
    want = Predictor.load(version).predict(given)
    np.testing.assert_allclose(found["prob_click"].to_numpy(), want, rtol=0, atol=1e-6)
    assert want.std() > 1e-3
    summary = json.loads((out / "score.json").read_text())
    assert (summary["files"], summary["rows"]) == (4, 3000)
    assert not list(out.glob(".*"))


def test_other_runner_options_are_passed_on(version: Path, rows: Path, tmp_path: Path) -> None:
    options = ["--runner=FnApiRunner", "--direct_num_workers=2"]
    options += ["--direct_running_mode=multi_threading"]
    assert score(version, [str(rows / "b.parquet")], tmp_path / "out", options)["rows"] == 500


def test_what_cannot_be_scored(version: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = pq.read_table(rows / "b.parquet")

    def refused(error: type[Exception], message: str, changed: pa.Table) -> None:
        pq.write_table(changed, tmp_path / "changed.parquet")
        with pytest.raises(error, match=message):
            score(version, [str(tmp_path / "changed.parquet")], out)
        assert not out.exists()

    refused(SchemaError, "'bid'.*no column", table.drop_columns(["bid"]))
    place = table.column_names.index("bid")
    words = table.set_column(place, "bid", pa.array(["x"] * 500))
    refused(SchemaError, "'bid'.*received string", words)
    refused(SchemaError, "'prob_click' already", table.append_column("prob_click", table["bid"]))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for path in (tmp_path / "broken.parquet", tmp_path / "nowhere", version):
        with pytest.raises(StreamError):
            score(version, [str(path)], out)
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(ConfigError, match="not empty"):
        score(version, [str(rows)], out)
