"""``octr explain``: credits are what leaving a group out really does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ctr.cli import main
from ctr.errors import ConfigError, SchemaError
from serving.explain import explain, parse_groups
from serving.gating.gate import read_recent
from serving.predictor import Predictor
from serving.signatures import QUALITY


def test_credits_are_differences_of_the_quality_logit(version: Path, data: Path) -> None:
    predictor = Predictor.load(version)
    rows = read_recent(data, 50).rows
    groups = parse_groups(predictor.encoder.schema, ["ad=ad_id,advertiser_id,ad_title"])
    found = explain(predictor, rows, groups)
    assert found.quality
    assert found.groups[0] == "ad"
    # Presentation has no say in quality, so it is not asked.
    assert not {"slot", "treatment"} & set(found.groups)
    columns = {name: rows[name].to_pylist() for name in predictor.encoder.columns}
    blank = dict.fromkeys(["ad_id", "advertiser_id", "ad_title"], [None] * 50)
    whole, without = (
        predictor.outputs({**columns, **change}, QUALITY)["quality_logits"]
        for change in ({}, blank)
    )
    np.testing.assert_allclose(found.logits, whole, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.credits[:, 0], whole - without, rtol=0, atol=1e-5)
    assert found.mean_absolute.shape == (len(found.groups),)
    assert found.mean_absolute.max() > 1e-3


def test_a_linear_model_credits_add_up(version: Path, data: Path) -> None:
    # Groups of a model without crosses do not interact, whatever they are cut into.
    predictor = Predictor.load(version)
    rows = read_recent(data, 20).rows
    parts = explain(predictor, rows, parse_groups(predictor.encoder.schema, []))
    both = explain(predictor, rows, {"both": ("ad_id", "advertiser_id")})
    places = [parts.groups.index(name) for name in ("ad_id", "advertiser_id")]
    np.testing.assert_allclose(
        parts.credits[:, places].sum(axis=1), both.credits[:, 0], rtol=0, atol=1e-5
    )


def test_the_command_tells_and_draws(
    version: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["explain", str(version), "--data", str(data), "--rows", "30", "--show", "2"]
    assert main([*argv, "--plot", str(tmp_path / "credits.svg")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["explained"], report["rows"]) == ("quality_logit", 30)
    values = list(report["mean_absolute_credit"].values())
    assert values == sorted(values, reverse=True)
    assert len(report["newest"]) == 2
    assert set(report["newest"][0]["credits"]) == set(report["mean_absolute_credit"])
    svg = (tmp_path / "credits.svg").read_text()
    assert "<svg" in svg
    assert main([*argv, "--plot", str(tmp_path / "credits.nonsense")]) == 2


def test_groups_that_cannot_be(version: Path, data: Path) -> None:
    predictor = Predictor.load(version)
    schema = predictor.encoder.schema
    for given, message in (
        (["ad=ad_di"], "did you mean 'ad_id'"),
        (["a=ad_id", "b=ad_id"], "in a group already"),
        (["ad"], "expected NAME=FEATURE"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_groups(schema, given)
    with pytest.raises(SchemaError, match="no rows"):
        explain(predictor, read_recent(data, 1).rows.slice(0, 0), parse_groups(schema, []))
