"""What a cluster refuses before it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ctr.cli import main
from ctr.distributed.trainer import refuse_host_work
from ctr.errors import ConfigError
from ctr.learner import Learner
from ctr.optimizers.shampoo import Shampoo
from ctr.testing.stream import tiny_recipe, tiny_stream


def test_parts_that_work_beside_the_graph_are_refused() -> None:
    recipe = tiny_recipe()
    schema, _ = tiny_stream(64, ())
    refuse_host_work(Learner(recipe, schema))
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, tower=Shampoo()))
    with pytest.raises(ConfigError, match="without --cluster"):
        refuse_host_work(Learner(recipe, schema))


def test_a_live_stream_is_learned_by_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")]
    assert main(["train", "--recipe", "lr", "--follow", "--cluster", "1x1", *where]) == 2
    assert "--cluster exclude each other" in capsys.readouterr().err
