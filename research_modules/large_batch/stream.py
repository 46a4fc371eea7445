"""Four optimizers, equally tuned, on one pass: ``python -m research_modules.large_batch.stream``.

The stream has known click probabilities (``ctr.bench.planted``), and what is shown is the
progressive log loss above their entropy. Tuned are dense rate, momentum, decay, warm-up and the
table's rate, for each optimizer and batch size; the winner is judged on a stream of another seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ctr.bench.planted import SCHEMA, TABLE_ROWS, planted_stream, progressive_losses
from ctr.harness.tuning import halton_choices
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.optimizers import AdaGrad, Optimizers
from ctr.recipe import Recipe
from research_modules.large_batch.optimizers import LayerRows
from research_modules.large_batch.rules import RULES, RuleState
from research_modules.large_batch.space import RATES, Knobs, space
from research_modules.large_batch.trials import summary, table

SIZES = (256, 8192)
#: Name -> batch size, and whether the table is treated as a layer.
SETTINGS = {"256": (256, False), "8192": (8192, False), "8192-layer": (8192, True)}
TABLE_RATE = {"low": 0.01, "high": 1.0, "log": True}
#: Excess loss in nats above which a trial counts as diverged.
DIVERGED = 0.3


@dataclass(frozen=True, eq=False)
class Turned:
    """Dense optimizer whose hyper-parameters are variables."""

    name: str
    knobs: Knobs

    def build(self, variables: Sequence[tf.Variable]) -> RuleState:
        """Creates the slots."""
        return RuleState(self.name, self.knobs.settings, variables)


@dataclass(frozen=True, eq=False)
class TurnedLayer:
    """The table as a layer, likewise."""

    name: str
    knobs: Knobs

    def build(self, weights: tf.Variable, n_inputs: int) -> LayerRows:
        """Creates the slots, of the whole table."""
        del n_inputs
        return LayerRows(RuleState(self.name, self.knobs.settings, [weights]), weights)


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """AdaGrad on rows, with a rate that is a variable: a step at rate 1, stretched."""

    rate: tf.Variable

    def build(self, weights: tf.Variable, n_inputs: int) -> ScaledRowsState:
        """Creates the slots."""
        return ScaledRowsState(AdaGrad(1.0).build(weights, n_inputs), weights, self.rate)


class ScaledRowsState(tf.Module):
    """The built form of :class:`ScaledRows`."""

    def __init__(self, base: Any, weights: tf.Variable, rate: tf.Variable) -> None:
        super().__init__(name="scaled_rows")
        self.base, self._weights, self._rate = base, weights, rate

    def apply(self, rows: tf.Tensor, values: tf.Tensor, gradients: tf.Tensor) -> None:
        """Moves rows int32[R] with values and summed gradients float32[R, D]."""
        self.base.apply(rows, values, gradients)
        moved = values + self._rate * (tf.gather(self._weights, rows) - values)
        self._weights.scatter_update(tf.IndexedSlices(moved, rows))

    def clear(self, rows: tf.Tensor) -> None:
        """Forgets what rows int32[R] have learned about their rates."""
        self.base.clear(rows)


class OnePass:
    """A learner of the stream that serves all trials of an optimizer.

    Args:
        optimizer: A name of ``RULES``.
        size: Examples per batch.
        rows: Examples of the stream.
        layer: True treats the embeddings as one more layer of the optimizer.
    """

    def __init__(self, optimizer: str, size: int, rows: int, layer: bool = False) -> None:
        steps = rows // size
        self._dense, self._table = Knobs(steps, fall=False), Knobs(steps, fall=False)
        self._rate = tf.Variable(0.1, trainable=False)
        rows_by = TurnedLayer(optimizer, self._table) if layer else ScaledRows(self._rate)
        self.space = space(optimizer, table=RATES[optimizer] if layer else TABLE_RATE)
        self._recipe = Recipe(
            model=Mlp(dim=8, hidden=(32, 16)),
            optimizer=Optimizers(embedding=rows_by, tower=Turned(optimizer, self._dense)),
            batch_size=size, table_rows=TABLE_ROWS + 1,
        )  # fmt: skip
        self._learner = Learner(self._recipe, SCHEMA, 1)
        self._start = [v.numpy().copy() for v in self._learner.variables]
        self._streams = [planted_stream(rows, seed) for seed in (0, 1)]

    def run(self, choice: dict[str, Any], stream: int) -> float:
        """Returns the mean excess loss on one of the two streams, in nats."""
        for variable, value in zip(self._learner.variables, self._start, strict=True):
            variable.assign(value.copy())
        self._dense.turn(choice)
        self._table.turn({**choice, "rate": choice["table"]})
        self._rate.assign(choice["table"])
        losses = progressive_losses(self._recipe, self._streams[stream], 1, self._learner)
        return float(losses.mean())


def tuned(one: OnePass, trials: int) -> dict[str, Any]:
    """Searches one optimizer.

    Returns:
        ``found``, the :class:`Found` of the search; ``choice``, its best; ``other``, the loss of
        that on the other stream.
    """
    choices = halton_choices(one.space, trials, seed=0)
    scores = [one.run(choice, 0) for choice in choices]
    found = summary(scores, choices, one.space, DIVERGED)
    best = choices[int(np.nanargmin(scores))]
    return {"found": found, "choice": best, "other": one.run(best, 1)}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Four optimizers, equally tuned, on one pass.")
    parser.add_argument("--trials", type=int, default=24, help="of each arm (default: 24)")
    parser.add_argument("--rows", type=int, default=307_200, help="examples (default: 307200)")
    parser.add_argument(
        "--setting", choices=[*SETTINGS], action="append", help="batch and table (default: all)"
    )
    args = parser.parse_args()
    results: dict[tuple[str, int, bool], dict[str, Any]] = {}
    for size, layer in (SETTINGS[name] for name in args.setting or SETTINGS):
        what = "table as a layer" if layer else "table by rows"
        print(f"\nBatch {size}, {what}, excess log loss of {args.trials} trials each\n")
        for name in RULES:
            one = OnePass(name, size, args.rows, layer)
            results[name, size, layer] = {**tuned(one, args.trials), "pass": one}
        found = {name: results[name, size, layer] for name in RULES}
        print(table({name: result["found"] for name, result in found.items()}))
        others = (f"{name} {result['other']:.4f}" for name, result in found.items())
        print("\nWinner on the other stream:", ", ".join(others), flush=True)
    if len({size for _, size, layer in results if not layer}) < len(SIZES):
        return
    print("\nThe small batch's winner at the large batch: rates kept, times root, times ratio\n")
    ratio = SIZES[1] / SIZES[0]
    for name in RULES:
        choice = results[name, SIZES[0], False]["choice"]
        large = results[name, SIZES[1], False]
        cells = []
        for factor in (1.0, ratio**0.5, ratio):
            rated = {k: v * factor if k in ("rate", "table") else v for k, v in choice.items()}
            cells.append(f"{large['pass'].run(rated, 0):.4f}")
        print(f"| {name} | {' | '.join(cells)} | retuned {large['found'].best:.4f} |")


if __name__ == "__main__":
    main()
