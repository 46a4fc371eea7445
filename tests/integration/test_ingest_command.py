import json

import pytest

from ctr.cli import main
from streaming.bench import bench_ingest


@pytest.fixture
def log(tmp_path):
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,3.5,964981247\n"
    )
    return tmp_path


def test_preset_and_runner_options(log, capsys):
    argv = ["ingest", "--preset", "movielens", "--input", str(log / "ratings.csv"), "--output",
            str(log / "data"), "--", "--direct_num_workers=1"]  # fmt: skip
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert "examples                    2" in captured.out
    assert "reading 1 file(s)" in captured.err
    assert json.loads((log / "data" / "summary.json").read_text())["positives"] == {"like": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "movielns"], "did you mean 'movielens'"),
        (["--schema", "/no/such.toml"], "no schema at /no/such.toml"),
        (["--preset", "movielens", "--max-bad-fraction", "2"], "expected 0 to 1"),
        (["--preset", "movielens", "--shard-rows", "0"], "expected 1 or more"),
        (["--preset", "avazu"], "no file of impressions to read"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(log, capsys, options, message):
    assert main(["ingest", *options, "--input", str(log), "--output", str(log / "data")]) == 2
    assert message in capsys.readouterr().err
    assert not (log / "data").exists()


def test_too_many_bad_rows_end_with_2(log, capsys):
    (log / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,good,964982703\n")
    argv = ["ingest", "--preset", "movielens", "--input", str(log), "--output", str(log / "data")]
    assert main(argv) == 2
    assert "label 'like': not a number" in capsys.readouterr().err
    assert not (log / "data" / "manifest.jsonl").exists()


def test_the_benchmark_checks_its_join():
    result = bench_ingest(rows=3000, seed=1)
    assert result["rows"] == 3000
    assert result["joined"] == result["joined_expected"] > 0
