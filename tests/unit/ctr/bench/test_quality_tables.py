"""Markdown tables of made-up trainings."""

from __future__ import annotations

from typing import Any

import pytest

from ctr.bench.quality_tables import quality_tables, spread


def span(log_loss: float, auc: float, **more: Any) -> dict[str, Any]:
    return {"examples": 1_000, "log_loss": log_loss, "auc": auc, "calibration": 1.0, **more}


def training(
    recipe: str, seed: int, log_loss: float, auc: float, calibration: float = 1.0
) -> dict[str, Any]:
    value = {
        "examples": 1_234, "base_rate": 0.25, "calibration": calibration,
        "calibration_low": calibration - 0.05, "calibration_high": calibration + 0.05,
    }  # fmt: skip
    return {
        "recipe": recipe, "seed": seed, "cpu_us_per_example": 2.0 + seed, "cpu_s": 7.0,
        "wall_s": 9.0, "peak_memory_bytes": 1_000_000_000, "all": span(log_loss, auc),
        "second_half": span(log_loss - 0.01, auc), "slices": {"tab": {"7": value}},
    }  # fmt: skip


@pytest.fixture
def blocks() -> list[list[list[str]]]:
    """The tables of two recipes and three seeds as cells."""
    trainings = [training("lr", seed, 0.6, 0.7) for seed in range(3)]
    trainings += [
        training("wide_dcn", 0, 0.59, 0.71, 0.9), training("wide_dcn", 1, 0.58, 0.69, 1.1),
        training("wide_dcn", 2, 0.61, 0.72, 0.98),
    ]  # fmt: skip
    text = quality_tables(trainings)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in text.split("\n\n")
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], "0.5000"),
        ([0.5, 0.50001], "0.5000"),
        ([0.52, 0.5, 0.51], "0.5100 (0.5000-0.5200)"),
        ([None, 0.5], "0.5000"),
        ([None], ""),
    ],
)
def test_spread_is_the_median_and_the_extremes(values: list, expected: str) -> None:
    assert spread(values, 4) == expected


def test_every_line_of_a_table_has_the_cells_of_its_head(blocks: list) -> None:
    assert len(blocks) == 4
    for block in blocks:
        assert {len(line) for line in block} == {len(block[0])}
        assert set(block[1]) == {"---"}


def test_quality_shows_both_spans_of_both_recipes(blocks: list) -> None:
    head, _, *body = blocks[0]
    assert head == ["span", "rows", "recipe", "log loss", "AUC", "calibration"]
    assert [line[:3] for line in body] == [
        ["all rows", "1,000", "lr"], ["all rows", "1,000", "wide_dcn"],
        ["second half", "1,000", "lr"], ["second half", "1,000", "wide_dcn"],
    ]  # fmt: skip
    assert body[1][3] == "0.5900 (0.5800-0.6100)"


def test_differences_are_paired_by_seed_and_counted_by_direction(blocks: list) -> None:
    first = blocks[2][2]
    assert first == ["wide_dcn - lr", "all rows", "-0.01000", "2 of 3", "+0.01000", "2 of 3"]


def test_the_interval_of_a_slice_is_that_of_the_median_seed(blocks: list) -> None:
    head, _, line = blocks[3]
    assert head[0] == "tab, second half"
    assert line == [
        "7", "1,234", "0.250", "1.000", "0.950-1.050", "0.980 (0.900-1.100)", "0.930-1.030"
    ]  # fmt: skip
