from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest

from ctr.bench import anchor, learner, quality
from ctr.bench.record import write_record


def test_numbers_are_written_with_the_machine(tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", data=tmp_path, loss=np.float32(0.5), auc=math.nan)
    found = json.loads((tmp_path / "record.json").read_text())
    assert found.pop("machine")["cores"] >= 1
    assert found == {"data": str(tmp_path), "loss": 0.5, "auc": None}


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(None, loss=0.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bench", [anchor, learner, quality])
def test_each_benchmark_takes_the_file(bench) -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    args, _ = parser.parse_known_args(["--data", "d", "--output", "o.json"])
    assert args.output == Path("o.json")
