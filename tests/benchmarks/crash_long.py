"""Kills a training run many times at random moments and compares it with an undisturbed one.

Run as ``python tests/benchmarks/crash_long.py --kills 20``; exit code 1 on any difference.
``--data`` takes ingested data of your own, on which a run should take a minute or more.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from crash_harness import Kill, outcome, train, train_and_kill

from ctr.data import manifest
from ctr.simulator import write_data

KINDS = ("learning", "saving", "start", "learning", "saving", "learning")
OPTIONS = ("--batch-size", "32", "--set", "table_rows=65536", "--save-predictions")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills that have to land")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--rows", type=int, default=200_000, help="simulated examples")
    parser.add_argument("--data", type=Path, help="ingested data, instead of simulated ones")
    parser.add_argument("--checkpoint-every", default="4096", metavar="EXAMPLES")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    options = (*OPTIONS, "--checkpoint-every", args.checkpoint_every)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = args.data or folder / "data"
        if args.data is None:
            write_data(data, args.rows, seed=1)
        n_rows = sum(shard.n_rows for shard in manifest.load(data)[1])
        train(data, folder / "undisturbed", *OPTIONS)

        run, landed, attempt = folder / "killed", 0, 0
        print(f"{'kill':>4}  {'moment':<9} {'delay':>8}  state of the run")
        while landed < args.kills and attempt < 3 * args.kills:
            # The last two kills fall into the time after the last checkpoint.
            kind = "final" if landed >= args.kills - 2 else KINDS[attempt % len(KINDS)]
            kill = Kill.random(kind, rng)
            alive, state = train_and_kill(data, run, kill, n_rows, options)
            attempt, landed = attempt + 1, landed + alive
            number = f"{landed:>4}" if alive else "   -"
            print(f"{number}  {kind:<9} {1000 * kill.delay_s:>5.0f} ms  {state}", flush=True)
            if not alive and kind != "final":
                print("the run is finished: use more --rows or more data", flush=True)
                break
        train(data, run, *options)
        differences = outcome(run).differences(outcome(folder / "undisturbed"))
    print(f"{landed} kills over {n_rows:,} examples: ", end="")
    print("same bytes" if not differences else "DIFFERENT:\n" + "\n".join(differences))
    return 1 if differences or landed < args.kills else 0


if __name__ == "__main__":
    sys.exit(main())
