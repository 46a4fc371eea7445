import argparse
import json

import pytest

from ctr.commands import simulate
from ctr.errors import ConfigError


def octr_simulate(*argv):
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    return simulate.run(parser.parse_args([str(a) for a in argv]))


def test_the_verb_writes_logs_and_prints_a_table(tmp_path, capsys):
    out = tmp_path / "events"
    status = octr_simulate(
        *("--impressions", 5_000, "--seed", 1, "--output", out, "--set", "days=2")
    )
    assert status == 0
    world = json.loads((out / "world.json").read_text())
    assert (world["impressions"], world["seed"], world["config"]["days"]) == (5_000, 1, 2.0)
    printed = capsys.readouterr()
    assert "click" in printed.out
    assert f"octr ingest --schema {out}/schema.toml" in printed.out
    assert "impressions/s" in printed.err


def test_a_file_of_settings_is_read(tmp_path):
    settings = tmp_path / "world.toml"
    settings.write_text('treatments = ["a", "b", "c"]\n')
    octr_simulate(
        *("--impressions", 500, "--seed", 0, "--output", tmp_path / "e", "--config", settings)
    )
    assert json.loads((tmp_path / "e" / "world.json").read_text())["config"]["treatments"] == [
        *("a", "b", "c")
    ]


def test_a_wrong_setting_is_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'n_users'"):
        octr_simulate(
            *("--impressions", 5, "--seed", 0, "--output", tmp_path / "e", "--set", "n_user=3")
        )
    assert not (tmp_path / "e").exists()
