"""Kills the joiner and the trainer of a live stream many times and compares with a calm run.

Run as ``python tests/benchmarks/live_crash_long.py --kills 50``; exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from live_harness import disturbed, undisturbed

from ctr.simulator import WorldConfig, write_events


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="kills that have to land")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--rows", type=int, default=20_000, help="simulated impressions")
    parser.add_argument("--longest-s", type=float, default=15.0, help="longest time to a kill")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_events(folder / "logs", args.rows, args.seed, WorldConfig(days=1.0))
        calm = undisturbed(folder / "logs", folder / "calm")
        wild, landed = disturbed(
            folder / "logs", folder / "wild", args.kills, args.seed, args.longest_s
        )
        for number, line in enumerate(landed, start=1):
            print(f"{number:>4}  {line}")
        shards, run = calm.outcome()
        other_shards, other_run = wild.outcome()
        differences = other_run.differences(run)
        if shards != other_shards:
            differences.append("shards")
    at_work = sum("at work" in line for line in landed)
    print(f"{len(landed)} kills, {at_work} of them at work, {len(shards)} shards: ", end="")
    print("same bytes" if not differences else "DIFFERENT:\n" + "\n".join(differences))
    return int(bool(differences) or len(landed) < args.kills)


if __name__ == "__main__":
    sys.exit(main())
