"""The progressive log loss of a cluster with a killed worker beside that of single processes.

Run as ``python tests/benchmarks/cluster_curve.py --rows 60000 --seeds 5``; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from cluster_harness import TINY, curves, on_a_cluster

from ctr.simulator import write_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="simulated impressions")
    parser.add_argument("--seeds", type=int, default=5, help="single processes")
    parser.add_argument("--stretches", type=int, default=12, help="parts of the stream")
    parser.add_argument("--recipe", default="mlp")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="PATH=VALUE",
        help="of the recipe; one that makes it tiny by default",
    )  # fmt: skip
    args = parser.parse_args()
    settings = args.settings or TINY
    with tempfile.TemporaryDirectory() as name:
        data, run = Path(name) / "data", Path(name) / "run"
        write_data(data, args.rows, seed=3)
        kill_at, wait_at = args.rows // 3, args.rows * 5 // 12
        told = on_a_cluster(data, run, args.recipe, kill_at, wait_at, settings)
        found = curves(data, run, args.recipe, args.seeds, settings, args.stretches)
    shown = {"noise": found.noise, "distance": found.distance, "bias": found.bias}
    print(json.dumps({name: round(x, 6) for name, x in shown.items()}))
    print(json.dumps({"cluster": told, "single_cpu_us": round(found.cpu_us, 1)}))
    for which, curve in (("cluster", found.cluster), ("seeds, mean", found.single.mean(axis=0))):
        print(which, " ".join(f"{x:.4f}" for x in curve))


if __name__ == "__main__":
    main()
