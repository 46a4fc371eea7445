from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from ctr.errors import ConfigError
from serving.gating.thresholds import Thresholds, judge, load_thresholds

BOUNDS = [f.name for f in fields(Thresholds) if f.name[:4] in ("max_", "min_")]


@pytest.mark.parametrize("name", BOUNDS)
def test_both_sides_of_every_bound(name: str) -> None:
    thresholds = Thresholds(**{name: 0.25})
    inside, outside = (0.2, 0.3) if name.startswith("max_") else (0.3, 0.2)
    for value, passed in ((0.25, True), (inside, True), (outside, False)):
        (check,) = judge({name[4:]: value}, thresholds)
        assert (check.name, check.passed, check.value) == (name, passed, value)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_is_undefined_fails(name: str, value: float | None) -> None:
    (check,) = judge({name[4:]: value}, Thresholds(**{name: 0.0}))
    assert not check.passed
    assert "undefined" in str(check)


def test_only_what_was_measured_is_judged() -> None:
    assert judge({}, Thresholds()) == []
    with pytest.raises(ConfigError, match="did you mean 'auc'"):
        judge({"acu": 1.0}, Thresholds())


def test_a_refusal_says_value_bound_and_where() -> None:
    (check,) = judge({"auc": 0.4}, Thresholds(min_auc=0.6), {"auc": "on mobile"})
    assert str(check) == "auc 0.4, wanted >= 0.6 (on mobile)"


def test_pages(tmp_path: Path) -> None:
    page = tmp_path / "gate.toml"
    assert load_thresholds(None) == Thresholds()
    page.write_text("min_auc = 0.7\nslice_examples = 10\n")
    assert load_thresholds(page) == Thresholds(min_auc=0.7, slice_examples=10)
    for text, message in (
        ("min_acu = 0.7", "did you mean 'min_auc'"),
        ('min_auc = "high"', "expected a number, received 'high'"),
        ("min_auc = nan", "expected a number"),
        ("recent_examples = 0", "must be positive"),
        ("min_auc 0.7", "cannot be read as TOML"),
    ):
        page.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_thresholds(page)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_thresholds(tmp_path / "missing.toml")
