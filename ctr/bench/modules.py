"""``octr bench modules``: what a learning step costs with a research module, against without."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctr.recipe import Recipe

HELP = "cost of a learning step with research modules, as a ratio to the recipe without"
BASE = "base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--module",
        action="append",
        required=True,
        dest="modules",
        metavar="'NAME [FIELD=VALUE ...]'",
        help="module and its settings, e.g. 'locoprop steps=3'; repeatable",
    )
    parser.add_argument("--recipe", default="wide_dcn", help="base recipe (default: wide_dcn)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="A.B=VALUE",
        help="override of the base recipe; repeatable",
    )
    parser.add_argument(
        "--rows", type=int, default=65_536, help="examples of a round (default: 65536)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")


def run(args: argparse.Namespace) -> int:
    """Prints the median cost of each arm and its ratio to the base, with quartiles.

    Raises:
        CtrError: a module or setting does not exist or does not fit the recipe.
    """
    import numpy as np

    from ctr.bench.timing import Arm, measure
    from ctr.config import override
    from ctr.harness.arms import module_from_settings
    from ctr.module import compose
    from ctr.recipe import named_recipe

    base = override(named_recipe(args.recipe), args.settings)
    recipes = {BASE: base}
    for text in args.modules:
        name, *settings = text.split()
        recipes[text] = compose(base, [module_from_settings(name, settings)])
    arms = [Arm(name, learning(recipe, args.rows), args.rows) for name, recipe in recipes.items()]
    timings = measure(arms, args.rounds)
    below = np.array(timings[BASE])
    print("| module | CPU us/example | ratio to the base (quartiles) |")
    print("| --- | --- | --- |")
    for name, values in timings.items():
        low, middle, high = np.percentile(np.array(values) / below, (25, 50, 75))
        print(f"| {name} | {np.median(values):.2f} | {middle:.2f}x ({low:.2f} to {high:.2f}) |")
    return 0


def learning(recipe: Recipe, rows: int) -> Callable[[], None]:
    """Returns a call that learns ``rows`` encoded examples of a planted stream."""
    from dataclasses import replace

    from ctr.bench.planted import SCHEMA, TABLE_ROWS, planted_stream, progressive_losses
    from ctr.learner import Learner

    recipe = replace(recipe, table_rows=max(recipe.table_rows, TABLE_ROWS))
    learner, stream = Learner(recipe, SCHEMA, 0), planted_stream(rows, 0)

    def call() -> None:
        progressive_losses(recipe, stream, 0, learner)

    return call
