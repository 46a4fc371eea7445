"""Position effect and calibration by position on an ingested log of ranked lists.

Run as ``python tests/benchmarks/bench_position.py DATA [--scored N] [--seeds S]``. Every arm makes
one progressive pass; its last N predictions (default: half) are scored. ``effect`` is the mean rate
of 5,000 scored rows at positions 2, 3, 5, 10 over that at position 1, all else equal; the first
line gives the ratios of the raw click rates, which hold the order's quality as well. ``rms`` is the
weighted root mean square over positions of sum(prediction) / sum(click) - 1, and ``chance`` what
it would be if all predictions were right.
"""

import argparse
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from one_pass import log_loss, one_pass

from ctr.calibration import NoCalibration, SliceBias
from ctr.data import manifest
from ctr.encoding import Encoder
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.techniques.platt import Platt
from ctr.techniques.ui_factorization import UiFactorization

POSITIONS = (1, 2, 3, 5, 10)
ARMS = {
    "no presentation": ((), SliceBias()),
    "position as feature": ((), SliceBias()),
    "the same, no calibrator": ((), NoCalibration()),
    "the same, platt": ((), Platt()),
    "sigmoid, dims = 0": ((UiFactorization(dims=0),), SliceBias()),
    "sigmoid, dims = 2": ((UiFactorization(dims=2),), SliceBias()),
    "exp, dims = 0": ((UiFactorization(dims=0, transfer="exp"),), SliceBias()),
}


def by_position(prob, clicks, position):
    """Returns rms relative bias over positions, and what chance alone gives."""
    relative, chance, weight = [], [], []
    for value in np.unique(position):
        rows = position == value
        expected, seen = prob[rows].sum(), clicks[rows].sum()
        if expected < 20:
            continue
        relative.append(expected / max(seen, 1) - 1)
        chance.append((prob[rows] * (1 - prob[rows])).sum() / expected**2)
        weight.append(rows.sum())
    return (
        np.sqrt(np.average(np.square(relative), weights=weight)),
        np.sqrt(np.average(chance, weights=weight)),
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--scored", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], metavar="ARM")
    args = parser.parse_args()
    whole, shards = manifest.load(args.data)
    table = pa.concat_tables(pq.read_table(f"{args.data}/{shard.file}") for shard in shards)
    clicks = table["click"].to_numpy().astype(np.float32)
    position = np.array(table["slot"].to_pylist()).astype(int)
    scored = args.scored or len(clicks) // 2
    late = slice(len(clicks) - scored, len(clicks))
    rates = [clicks[late][position[late] == at].mean() for at in POSITIONS]
    print("clicks", " ".join(f"{rate / rates[0]:.3f}" for rate in rates[1:]))
    asked = table.take(np.random.default_rng(0).choice(np.arange(late.start, late.stop), 5000))
    for name, (modules, calibrator) in ARMS.items():
        if args.only and name not in args.only:
            continue
        shown = name != "no presentation"
        schema = dataclasses.replace(whole, slices=("slot",))
        if not shown:
            plain = tuple(f for f in whole.features if not f.ui)
            schema = dataclasses.replace(whole, features=plain, slices=())
        encoder = Encoder(schema, 1 << 18)

        def encode(part, encoder=encoder):
            done = [encoder.encode(b) for b in part.to_batches(max_chunksize=65_536)]
            return tuple(np.concatenate([getattr(x, k) for x in done]) for k in ("ids", "numeric"))

        ids, numeric = encode(table)
        place = asked.column_names.index("slot")
        moved = [encode(asked.set_column(place, "slot", pa.array([str(at)] * len(asked))))
                 for at in POSITIONS]  # fmt: skip
        for seed in range(args.seeds):
            recipe = Recipe(
                model=Mlp(dim=8, hidden=(64, 32)), calibrator=calibrator, table_rows=1 << 18
            )
            learner = Learner(compose(recipe, modules), schema, seed, n_batches=64)
            prob, cpu = one_pass(learner, ids, numeric, clicks)
            end = len(prob)
            part = slice(late.start, end)
            rms, chance = by_position(prob[part], clicks[part], position[part])
            means = [learner.predict(*where)[:, 0].mean() for where in moved]
            effect = " ".join(f"{mean / means[0]:.3f}" for mean in means[1:])
            print(
                f"{name:24s} seed {seed}  loss {log_loss(prob[part], clicks[part]):.5f}  "
                f"effect {effect}  rms {rms:.4f}  chance {chance:.4f}  us {cpu:.2f}", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
