"""Four decades of base rate and a shift: ``python -m research_modules.eg_step_size.shift``.

The stream has known click probabilities (``ctr.bench.planted``); halfway, half of the ids get new
effects. SGD with momentum moves the dense variables at a rate that is constant, falls linearly to
0, or is constant under a learned scale, which moves the rows as well. Rows have AdaGrad at a rate
of their own. Shown is the progressive log loss above the entropy of the truth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctr.bench.planted import SCHEMA, TABLE_ROWS, Planted, planted_stream, progressive_losses
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.optimizers import AdaGrad, KerasOptimizer, Optimizers
from ctr.optimizers.dense import KerasState
from ctr.recipe import Recipe
from ctr.update import GradientState
from research_modules.eg_step_size import EgStepSize

RATES = (1e-4, 1e-3, 1e-2, 1e-1, 3e-1, 1.0)
METHODS = ("constant", "linear decay", "eg")
SIZE, LAUNCH = 256, 50
#: Launches after the shift that count as the recovery: 200 batches.
AFTER = 4
SGD = KerasOptimizer("SGD", 1.0, momentum=0.9)
RECIPE = Recipe(
    model=Mlp(dim=8, hidden=(48, 32, 16)), batch_size=SIZE, table_rows=TABLE_ROWS,
    optimizer=Optimizers(AdaGrad(0.02), AdaGrad(0.02), SGD, SGD),
)  # fmt: skip
#: One scale and the bounds of the paper's setting, where the base rate may be off by any factor.
EG = EgStepSize(memory=0.0, scope="global", lowest=1e-6, highest=1e6)


class Pass(NamedTuple):
    """One pass, by launches of 50 batches.

    Attributes:
        losses: Mean excess log loss in nats, float64[launches].
        scales: The scale after each launch, float64[launches]; 1 without one.
    """

    losses: NDArray[np.float64]
    scales: NDArray[np.float64]

    @property
    def recovery(self) -> float:
        """Mean excess loss of the 200 batches after the shift, in nats."""
        shift = len(self.losses) // 2
        return float(self.losses[shift : shift + AFTER].mean())

    @property
    def rise(self) -> float:
        """Scale 50 batches after the shift over the scale before it."""
        shift = len(self.scales) // 2
        return float(self.scales[shift] / self.scales[shift - 1])


class Study:
    """A learner that serves all rates of a method.

    Args:
        method: A name of ``METHODS``.
    """

    def __init__(self, method: str) -> None:
        self._recipe = compose(RECIPE, [EG]) if method == "eg" else RECIPE
        self._decay = method == "linear decay"
        self._learner = Learner(self._recipe, SCHEMA, 0, n_batches=LAUNCH)
        self._start = [v.numpy().copy() for v in self._learner.variables]

    def run(self, rate: float, stream: Planted) -> Pass:
        """Returns one pass over the stream at a base rate, from the same initial values."""
        for variable, value in zip(self._learner.variables, self._start, strict=True):
            variable.assign(value.copy())
        update, rows = self._learner.update, SIZE * LAUNCH
        assert isinstance(update, GradientState)  # both arms take one gradient step per batch
        n = len(stream.labels) // rows
        losses, scales = np.empty(n), np.ones(n)
        for launch in range(n):
            for state in update.states:
                assert isinstance(state, KerasState)
                state.optimizer.learning_rate.assign(rate * (1 - launch / n * self._decay))
            at = slice(launch * rows, (launch + 1) * rows)
            part = Planted(stream.ids[at], stream.labels[at], stream.probs[at])
            losses[launch] = progressive_losses(self._recipe, part, 0, self._learner).mean()
            if hasattr(update, "scales"):
                scales[launch] = math.exp(update.scales[0].log_scale.numpy())
        return Pass(losses, scales)


def sweep(
    methods: Sequence[str], rates: Sequence[float], streams: Sequence[Planted]
) -> dict[str, list[list[Pass]]]:
    """Returns the passes by method, rate and stream."""
    found = {}
    for method in methods:
        study = Study(method)
        found[method] = [[study.run(rate, stream) for stream in streams] for rate in rates]
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Four decades of base rate, and a shift.")
    parser.add_argument("--seeds", type=int, default=3, help="streams of each line (default: 3)")
    parser.add_argument("--rows", type=int, default=307_200, help="examples (default: 307200)")
    args = parser.parse_args()
    streams = [planted_stream(args.rows, seed, args.rows // 2) for seed in range(args.seeds)]
    found = sweep(METHODS, RATES, streams)
    for title, value in (
        ("Excess log loss, whole stream", lambda one: one.losses.mean()),
        ("Excess log loss, 200 batches after the shift", lambda one: one.recovery),
        ("Scale 50 batches after the shift, over the one before it", lambda one: one.rise),
    ):
        print(f"\n{title}: mean over streams\n")
        _table(_values(found, value), "{:.4f}")
    whole = _values(found, lambda one: one.losses.mean())
    best = whole["constant"].mean(axis=1).argmin()
    print(
        f"\nExcess log loss to the constant rate {RATES[best]:g}: mean ± standard error, paired\n"
    )
    _table({name: one - whole["constant"][best] for name, one in whole.items()}, "{:+.4f} ± {:.4f}")


def _values(
    found: dict[str, list[list[Pass]]], value: Callable[[Pass], float]
) -> dict[str, NDArray[np.float64]]:
    """Returns a number per method, rate and stream, float64[rates, streams]."""
    return {
        name: np.array([[value(one) for one in passes] for passes in rows])
        for name, rows in found.items()
    }


def _table(values: dict[str, NDArray[np.float64]], cell: str) -> None:
    print(f"| method | {' | '.join(f'{rate:g}' for rate in RATES)} |")
    print("| --- " * (len(RATES) + 1) + "|")
    for method, rows in values.items():
        n = rows.shape[1]
        error = rows.std(axis=1, ddof=1) / n**0.5 if n > 1 else np.full(len(rows), math.nan)
        cells = (cell.format(*one) for one in zip(rows.mean(axis=1), error, strict=True))
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
