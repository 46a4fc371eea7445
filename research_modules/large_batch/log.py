"""The protocol on a log, with many trials: ``python -m research_modules.large_batch.log``.

Model, batch size and stream are those of the page ``large_batch``, or the log of ``--data``. Four
optimizers are tuned over rate, momentum, decay, warm-up and the table's rate (AdaGrad in the tower
over its own rate and the table's), with equally many trials on the first examples. The winners
learn the whole stream from fresh initial values and are compared on the later examples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tensorflow as tf

from ctr.harness.arms import build_arm
from ctr.harness.experiment import BASE, load_table, parse
from ctr.harness.in_process import Contender, difference, half_width, tune
from ctr.harness.stream import open_stream
from ctr.learner import Learner
from ctr.recipe import Recipe
from research_modules.large_batch.rules import RULES
from research_modules.large_batch.space import Knobs, space
from research_modules.large_batch.stream import TABLE_RATE, ScaledRows, Turned
from research_modules.large_batch.trials import summary, table

ADAGRAD = "adagrad"
ADAGRAD_SPACE = {"rate": {"low": 1e-3, "high": 1.0, "log": True}, "table": TABLE_RATE}


def contender(name: str, recipe: Recipe, steps: int) -> Contender:
    """Returns an optimizer with its space.

    Args:
        name: A name of ``RULES``, or ``adagrad``.
        recipe: What it learns with.
        steps: Batches that are tuned on, of which the warm-up is a share.
    """
    row_rate = tf.Variable(0.1, trainable=False)
    optimizers = replace(recipe.optimizer, embedding=ScaledRows(row_rate))
    if name == ADAGRAD:

        def turn(learner: Learner, choice: Mapping[str, Any]) -> None:
            row_rate.assign(choice["table"])
            update: Any = learner.update
            update.states[-1].optimizer.learning_rate.assign(choice["rate"])

        return Contender(replace(recipe, optimizer=optimizers), ADAGRAD_SPACE, turn)
    knobs = Knobs(steps, fall=False)

    def turn_rule(learner: Learner, choice: Mapping[str, Any]) -> None:
        del learner
        row_rate.assign(choice["table"])
        knobs.turn(dict(choice))

    optimizers = replace(optimizers, tower=Turned(name, knobs))
    ranges = space(name, table=TABLE_RATE)
    return Contender(replace(recipe, optimizer=optimizers), ranges, turn_rule)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Optimizers, equally tuned, on a log.")
    parser.add_argument("--data", help="data folder (default: the page's simulated stream)")
    parser.add_argument("--trials", type=int, default=12, help="of each (default: 12)")
    parser.add_argument("--rows", type=int, default=60_000, help="tuned on (default: 60000)")
    parser.add_argument("--seeds", type=int, default=3, help="of the comparison (default: 3)")
    args = parser.parse_args()
    settings = [f"stream={{data={json.dumps(args.data)}}}"] if args.data else []
    experiment = parse(load_table("large_batch", settings))
    stream = open_stream(experiment)
    recipe = build_arm(experiment, experiment.arm(BASE), stream.schema).recipe
    seeds = range(1, args.seeds + 1)
    found, result = {}, {}
    for name in (ADAGRAD, *RULES):
        one = contender(name, recipe, args.rows // recipe.batch_size)
        result[name] = tune(one, stream, args.rows, args.trials, seeds)
        found[name] = summary(result[name].scores, result[name].choices, one.space)
    print(f"\nBatch {recipe.batch_size}, log loss of the first {args.rows:,} examples\n")
    print(table(found))
    print(f"\nLater examples of {stream.rows:,}, {args.seeds} seeds\n")
    print("| | log loss | to adam | best choice |\n| --- | --- | --- | --- |")
    for name, tuned in result.items():
        apart = difference(tuned, result["adam"])
        best = ", ".join(f"{key} {value:.3g}" for key, value in tuned.best.items())
        print(
            f"| {name} | {tuned.losses.mean():.5f} "
            f"| {apart.value:+.5f} ± {half_width(apart):.5f} | "
            f"{best} |"
        )


if __name__ == "__main__":
    main()
