"""How often the health monitors alarm on sound simulated streams.

Run as ``python tests/benchmarks/false_alarms.py --streams 20``. Predictions are the true
probabilities; the streams have a daily cycle, drifting ads and new ads, and no fault.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa

from ctr.data.examples import Block
from ctr.encoding import Encoder
from ctr.health import HealthConfig, HealthMonitor
from ctr.simulator import WorldConfig, simulate_examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20, help="simulated streams")
    parser.add_argument("--windows", type=int, default=60, help="windows per stream")
    parser.add_argument("--window", type=int, default=1000, help="examples per window")
    args = parser.parse_args()
    n = args.windows * args.window
    judged = alarmed = 0
    for seed in range(args.streams):
        world = WorldConfig(days=4.0, n_users=2000, n_ads=960, n_advertisers=96, n_queries=400,
                            shift_logit=0.0)  # fmt: skip
        simulated = simulate_examples(n, 100 + seed, world)
        table = simulated.examples.combine_chunks().to_batches()[0]
        encoder = Encoder(simulated.schema, 1 << 20)
        encoded = encoder.encode(table)
        label = table.column("click").to_numpy(zero_copy_only=False).astype(np.float32)[:, None]
        time = table.column("event_time").cast(pa.int64()).to_numpy(zero_copy_only=False)
        block = Block(encoded.ids, encoded.numeric, label, np.ones(n, np.float32), time, None, {},
                      table.select(["example_id", *simulated.schema.slices]))  # fmt: skip
        p = simulated.truth.column("p_click").to_numpy().astype(np.float32)[:, None]
        config = HealthConfig(window=args.window)
        monitor = HealthMonitor(encoder, config)
        before: list[str] = []
        for at in range(0, n, args.window):
            monitor.observe([block.cut(at, at + args.window)], p[at : at + args.window])
            if monitor.windows > config.burn_in + 4:
                judged += 1
                if monitor.alarms and not before:
                    alarmed += 1
                    print(f"stream {seed}, window {monitor.windows}: {monitor.alarms}", flush=True)
            before = monitor.alarms
    print(f"{alarmed} false alarms in {judged} windows, {len(monitor.names)} monitors")


if __name__ == "__main__":
    main()
