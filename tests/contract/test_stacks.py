"""Modules together: stacks that make sense compose, and what excludes each other is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ctr.errors import CtrError
from ctr.harness.arms import build_module
from ctr.harness.experiment import load_table, parse
from ctr.module import compose
from ctr.recipe import named_recipe
from ctr.registry import load


def made(*names: str) -> list[Any]:
    return [load(name)() for name in names]


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("locoprop", "dp_training", "'dp_training' replaces the update"),
        ("dp_training", "locoprop", "'locoprop' replaces the update"),
        ("locoprop", "eg_step_size", "scales the one gradient step"),
        ("rank_loss", "dp_training", "a loss that belongs to one example"),
        ("ngrammer", "dp_training", "learns from raw examples without noise"),
        ("dp_training", "task_affinity", "would read raw labels"),
        ("ensemble", "locoprop", "needs a model that is Layered"),
        ("patient_distillation", "bregman_distillation", "Put it before modules that wrap"),
        ("large_batch", "shampoo", "takes its step sizes from AdaGrad"),
        ("task_affinity", "dp_training", "'dp_training' replaces the update"),
    ],
)
def test_what_excludes_each_other_is_refused(first: str, second: str, sentence: str) -> None:
    with pytest.raises(CtrError, match=sentence):
        compose(named_recipe("wide_dcn"), made(first, second))


def test_the_shipped_stacks_compose() -> None:
    page = parse(load_table("stacks"))
    base = named_recipe(page.base.recipe)
    for arm in page.arms:
        modules = [build_module(use) for use in arm.modules]
        assert compose(base, modules) != base
    assert max(len(arm.modules) for arm in page.arms) == 2
