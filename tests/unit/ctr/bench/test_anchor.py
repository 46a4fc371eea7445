"""Running the peer, here a script that predicts 0.25 for every example it is given."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ctr.bench.anchor import GRID, anchor_table, peer_version, read_progressive, run_setting
from ctr.bench.child import run_child
from ctr.bench.scoring import Rows
from ctr.errors import ConfigError, CtrError, StreamError

_PEER = f"""#!{sys.executable}
import sys
options = sys.argv
assert options[1:3] == ["-m", "vowpalwabbit"], options
lines = open(options[options.index("-d") + 1]).readlines()
with open(options[options.index("-p") + 1], "w") as file:
    file.writelines("0.250000\\n" for _ in lines)
"""


@pytest.fixture
def peer(tmp_path: Path) -> str:
    script = tmp_path / "peer"
    script.write_text(_PEER)
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def rows() -> Rows:
    label = np.array([0, 1, 0, 0, 1, 0, 0, 0], np.int8)
    ids = pa.chunked_array([[str(i) for i in range(8)]])
    return Rows(ids, label, np.ones(8, np.float32), None, {})


def test_a_setting_is_scored_like_any_model(peer: str, rows: Rows, tmp_path: Path) -> None:
    text = tmp_path / "examples.vw"
    text.write_text("1 |a x\n" * 8)
    result = run_setting(peer, text, ("-l", "0.5"), rows)
    assert result["options"].endswith("-l 0.5")
    assert result["all"]["calibration"] == pytest.approx(1.0)
    assert result["second_half"]["log_loss"] == pytest.approx(
        -(np.log(0.25) + 3 * np.log(0.75)) / 4
    )
    assert result["all"]["auc"] == 0.5
    assert result["cpu_us_per_example"] > 0
    line = anchor_table([{"name": "constant", **result}]).splitlines()[-1]
    assert line.startswith("| constant | 0.5623 | 0.5000 | 1.000 |")


def test_the_table_begins_with_the_smallest_log_loss(rows: Rows) -> None:
    def result(name: str, loss: float) -> dict:
        span = {"log_loss": loss, "auc": 0.5, "calibration": 1.0}
        return {"name": name, "all": span, "second_half": span, "cpu_us_per_example": 4.0}

    lines = anchor_table([result("worse", 0.7), result("better", 0.6)]).splitlines()
    assert lines[2].startswith("| better ")


def test_too_few_predictions_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("0.5\n0.000000\n1.000000\n")
    prob = read_progressive(tmp_path / "p", 3)
    assert 0 < prob[1] < prob[0] < prob[2] < 1
    with pytest.raises(StreamError, match="3 predictions for 4 examples"):
        read_progressive(tmp_path / "p", 4)


def test_a_failing_command_shows_its_last_words() -> None:
    with pytest.raises(CtrError, match=r"(?s)exit code 3.*no such option"):
        run_child([sys.executable, "-c", "import sys; print('no such option'); sys.exit(3)"])


def test_the_cost_is_that_of_the_child() -> None:
    usage = run_child([sys.executable, "-c", "sum(range(3_000_000))"])
    assert 0 < usage.cpu_s
    assert 0 < usage.wall_s


def test_a_missing_peer_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pip install vowpalwabbit"):
        peer_version(str(tmp_path / "no-python"))


def test_every_setting_of_the_grid_is_another() -> None:
    assert len(set(GRID.values())) == len(GRID) == 13
