"""The table of changes in percent, on a report made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ctr.harness.changes import change_rows, changes, markdown, text_changes


def metric(value: float, difference: float | None = None, half: float = 0.0) -> dict[str, Any]:
    if difference is None:
        return {"value": value}
    ends = {"low": difference - half, "high": difference + half}
    return {"value": value, "difference": difference, "over_time": ends, "over_seeds": ends}


def arm(name: str, auc: dict, loss: dict, pd: dict, train: dict, learned: float) -> dict[str, Any]:
    flat = {"value": 1.0, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    flat = {"value": 1.0} if name == "base" else flat
    metrics = {"per_query_auc": auc, "log_loss": loss, "calibration_error": metric(0.01)}
    return {
        "name": name,
        "labels": {"click": {"metrics": metrics}},
        "prediction_difference": pd,
        "learned_share": learned,
        "effective_share": 0.63,
        "costs": {
            "cpu_us_per_example": train,
            "inference_us_per_example": flat,
            "peak_memory_bytes": {**flat, "value": 2.0**20},
            "parameters": flat,
        },
    }


@pytest.fixture
def report() -> dict[str, Any]:
    base = arm("base", metric(0.6), metric(0.5), {"value": 0.2}, {"value": 4.0}, 1.0)
    dear = {"value": 9.0, "ratio": 1.36, "ratio_low": 1.3, "ratio_high": 1.42}
    better = arm(
        "x", metric(0.604, 0.004, 0.002), metric(0.5005, 0.0005, 0.001),
        {"value": 0.12, "difference": {"value": -0.08, "low": -0.1, "high": -0.06}}, dear, 0.28,
    )  # fmt: skip
    return {"labels": ["click"], "arms": [base, better]}


def test_changes_are_relative_to_the_base(report: dict[str, Any]) -> None:
    found = changes(report["arms"][1], report["arms"][0], "click")
    # 1 - AUC falls from 0.4 to 0.396.
    assert found["per-query AUCLoss"].value == pytest.approx(-1.0)
    assert found["per-query AUCLoss"].low == pytest.approx(-1.5)
    assert str(found["per-query AUCLoss"]) == "-1.00 ±0.50 better"
    assert str(found["log loss"]) == "+0.10 ±0.20"
    assert str(found["PD"]) == "-40.0 ±10.0 better"
    assert str(found["train CPU"]) == "+36.0 ±6.0 worse"
    assert str(found["parameters"]) == "+0.00 ±0.00"
    assert "calibration error" not in found  # the arm has no difference there


def test_rows_hold_the_bases_values_and_a_samplers_shares(report: dict[str, Any]) -> None:
    heads, base, row = change_rows(report)
    assert heads[:5] == ["arm", "per-query AUCLoss", "log loss", "PD", "train CPU"]
    assert dict(zip(heads, base, strict=True))["per-query AUCLoss"] == "0.4000"
    assert dict(zip(heads, base, strict=True))["PD"] == "20.00%"
    assert row[-2:] == ["28%", "63%"]
    assert [line.split("|")[1].strip() for line in markdown(report).splitlines()[2:]] == [
        "arm", "---", "base", "x",
    ]  # fmt: skip
    assert "-1.00 ±0.50 better" in text_changes(report)


def test_no_table_without_a_base(report: dict[str, Any]) -> None:
    del report["arms"][0]
    assert change_rows(report) == []
    assert text_changes(report) == ""
