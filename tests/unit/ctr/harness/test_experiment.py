from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr.errors import ConfigError
from ctr.harness.experiment import A_A, BASE, load_table, only_arms, parse, shipped_experiments

PAGE = """
name = "smooth"
seeds = [1, 2]
primary = "auc"
delay_s = {click = 300}

[stream]
data = "DATA"
burn_in = 100

[base]
recipe = "mlp"
set = ["model.dim=4"]

[[arms]]
name = "wide"
set = ["model.hidden=[64]"]
publish_interval_s = 60

[[arms]]
name = "mine"
modules = [{use = "my.module:Mine", beta = 0.5}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "page.toml"
    path.write_text(PAGE)
    return path


def test_page_becomes_an_experiment(file: Path) -> None:
    found = parse(load_table(str(file)))
    assert [arm.name for arm in found.all_arms] == [BASE, A_A, "wide", "mine"]
    assert found.publish_us(found.arm("wide")) == 60_000_000
    assert found.publish_us(found.arm("mine")) == 0
    assert found.arm("mine").modules[0].parameters == {"beta": 0.5}
    assert found.seeds == (1, 2)
    assert found.burn_in == 100


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("stream.rows=1000", lambda e: e.stream.rows == 1000),
        ("seeds=[4]", lambda e: e.seeds == (4,)),
        ("name=other", lambda e: e.name == "other"),
        ("arms.0.set=['batch_size=8']", lambda e: e.arms[0].set == ("batch_size=8",)),
        ("arms.mine.publish_interval_s=9", lambda e: e.arms[1].publish_interval_s == 9.0),
        ("arms.mine.modules.0.beta=2", lambda e: e.arms[1].modules[0].parameters["beta"] == 2),
        ("tune.rows=50", lambda e: e.tune.rows == 50),
        ("primary=", lambda e: e.primary == "log_loss"),
        ("stream.rows= ", lambda e: e.stream.rows == 0),
    ],
)
def test_overrides(file: Path, assignment: str, read: Callable[[Any], bool]) -> None:
    assert read(parse(load_table(str(file), [assignment])))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sedes=[1]", "unknown key 'sedes': did you mean 'seeds'"),
        ("stream.burnin=1", "stream: unknown key 'burnin': did you mean 'burn_in'"),
        ("arms.wide.sets=1", r"arms\[0\]: unknown key 'sets': did you mean 'set'"),
        ("arms.wdie.set=[]", "no entry 'wdie': did you mean 'wide'"),
        ("seeds='1'", "seeds: expected a list"),
        ("seeds=[1, 1]", "seeds must be distinct"),
        ("stream.rows=-1", "at least 0"),
        ("stream.rows=1.5", "stream.rows: expected int, received 1.5"),
        ("stream.simulate.impressions=10", "`data` or `simulate`"),
        ("primary=acu", "did you mean 'auc'"),
        ("arrivals=later", "matured or label_time"),
        ("arms.0.name=base", "distinct names"),
        ("arms.0.publish_interval_s=-1", "publish_interval_s"),
        ("arms.0.modules=[{beta=1}]", r"arms\[0\].modules\[0\]: expected {use"),
        ("arms.0.tune={'model.dim'=[1]}", r"add a \[tune\] table"),
        ("tune.trials=4", "tune: the key 'rows' is missing"),
        ("tune={rows=5, method='bayes'}", "grid, random, halton, optuna"),
        ("name.x=1", "name is no table"),
        ("cost_rounds=5", "at least 6"),
        ("stream.data=", "`data` or `simulate`"),
        ("name", "expected a.b=value"),
    ],
)
def test_mistakes_are_named(file: Path, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(load_table(str(file), [assignment]))


def test_only_some_arms(file: Path) -> None:
    table = load_table(str(file))
    assert [arm.name for arm in parse(only_arms(table, ["mine"])).arms] == ["mine"]
    with pytest.raises(ConfigError, match="--only 'mien': no such arm: did you mean 'mine'"):
        only_arms(table, ["mien"])


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment file publish_intreval.*publish_interval"):
        load_table("publish_intreval")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_table(str(tmp_path / "broken.toml"))


@pytest.mark.parametrize("name", sorted(shipped_experiments()))
def test_shipped_experiments_are_valid(name: str) -> None:
    assert parse(load_table(name)).name == name
