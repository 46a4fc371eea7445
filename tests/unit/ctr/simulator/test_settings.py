import pytest

from ctr.errors import ConfigError
from ctr.simulator import WorldConfig
from ctr.simulator.settings import load_world


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "world.toml"
    path.write_text("days = 3\nshift_logit = 0.1\n[labels.click]\nrate = 0.2\n")
    config = load_world(path, ["shift_logit=0.5", "labels.like.window_s=60", "start=2025-02-03"])
    assert (config.days, config.shift_logit, config.start) == (3.0, 0.5, "2025-02-03")
    assert isinstance(config.days, float)
    by_name = {label.name: label for label in config.labels}
    assert (by_name["click"].rate, by_name["like"].window_s) == (0.2, 60.0)
    assert by_name["share"] == WorldConfig().labels[-1]


def test_lists_become_tuples_and_new_labels_may_be_added():
    config = load_world(
        None, ["examination=[1, 0.5]", "labels.skip={group = 'social', rate = 0.1}"]
    )
    assert config.examination == (1.0, 0.5)
    assert config.labels[-1].name == "skip"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shift_logits=1", "unknown key 'shift_logits': did you mean 'shift_logit'"),
        ("shift_logit", "expected a.b=value"),
        (".=1", "expected a.b=value"),
        ("n_users=many", "world.n_users: expected int, received 'many'"),
        ("n_users=true", "expected int, received True"),
        ("examination=0.5", "expected a list, received 0.5"),
        ("labels.click.rat=0.1", "unknown key 'rat': did you mean 'rate'"),
        ("labels.clik.rate=0.1", "no such label: did you mean 'click'"),
        ("labels=3", "expected tables"),
        ("labels.click=3", "labels.click: expected a table"),
        ("labels.click.name='x'", "Leave `name` out"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_world(None, [override])


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no world at .*absent\.toml"):
        load_world(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("days = = 3")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_world(broken)
