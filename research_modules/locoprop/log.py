"""LocoProp against BackProp, both tuned: ``python -m research_modules.locoprop.log``.

Arms, batch size and stream are those of the page ``locoprop``, or the log of ``--data``. Each arm
gets the same rates of RMSprop in the tower on the first examples; its best one is compared on the
later examples, with fresh initial values.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ctr.harness.arms import build_arm
from ctr.harness.experiment import BASE, Experiment, load_table, parse
from ctr.harness.in_process import Contender, Tuned, difference, half_width, tune
from ctr.harness.stream import Stream, open_stream
from ctr.learner import Learner

ARMS = (BASE, "matching, 5 steps", "squared, 5 steps")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def turn(learner: Learner, choice: Mapping[str, Any]) -> None:
    """Sets the rate of the tower, be it learned locally or not."""
    update: Any = learner.update
    state = update.local.state if hasattr(update, "local") else update.states[-1]
    state.optimizer.learning_rate.assign(choice["rate"])


def study(
    experiment: Experiment, stream: Stream, rows: int, rates: Sequence[float], n_seeds: int
) -> dict[str, Tuned]:
    """Returns what tuning found, by arm."""
    found = {}
    for name in ARMS:
        recipe = build_arm(experiment, experiment.arm(name), stream.schema).recipe
        one = Contender(recipe, {"rate": list(rates)}, turn)
        found[name] = tune(one, stream, rows, len(rates), range(1, n_seeds + 1), "grid")
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="LocoProp against BackProp, both tuned.")
    parser.add_argument("--data", help="data folder (default: the page's simulated stream)")
    parser.add_argument("--rows", type=int, default=60_000, help="tuned on (default: 60000)")
    parser.add_argument("--seeds", type=int, default=2, help="of the comparison (default: 2)")
    args = parser.parse_args()
    settings = [f"stream={{data={json.dumps(args.data)}}}"] if args.data else []
    experiment = parse(load_table("locoprop", settings))
    stream = open_stream(experiment)
    found = study(experiment, stream, args.rows, RATES, args.seeds)
    print(f"\nLog loss of the first {args.rows:,} examples by rate; the later ones, {args.seeds} "
          f"seeds, of {stream.rows:,}\n")  # fmt: skip
    print(f"| | {' | '.join(f'{rate:g}' for rate in RATES)} | later | to BackProp |")
    print("| --- " * (len(RATES) + 3) + "|")
    for name, one in found.items():
        apart = difference(one, found[BASE])
        tried = " | ".join(f"{score:.5f}" for score in one.scores)
        print(
            f"| {name} | {tried} | {one.losses.mean():.5f} | "
            f"{apart.value:+.5f} ± {half_width(apart):.5f} |"
        )


if __name__ == "__main__":
    main()
