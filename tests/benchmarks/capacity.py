"""What a load needs: cores, state, memory, disk and money, from the cost of one unit of each.

Run as ``python tests/benchmarks/capacity.py``; it prints the tables of docs/scale.md. Each unit
cost is an option whose help names the command that measures it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

DAY_S = 86_400.0
HOUR_S = 3_600.0


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def si(value: float, unit: str = "") -> str:
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def backfill(units: argparse.Namespace, examples: Iterable[float]) -> str:
    """One pass over a log that is there already."""
    rows = []
    for n in examples:
        ingest_h = n / units.ingest_rows_per_cpu_s / HOUR_S
        learn_h = n * units.learn_us / 1e6 / HOUR_S
        cluster_h = n * units.cluster_us / 1e6 / HOUR_S
        rows.append(
            [
                f"{n:.0e}",
                f"{ingest_h:,.1f}",
                f"{learn_h:,.1f}",
                f"{learn_h / 24:,.2f}",
                f"{cluster_h:,.1f}",
                si(n * units.shard_bytes, "B"),
                f"{(ingest_h + learn_h) * units.price_core_hour:,.2f}",
                f"{n * units.shard_bytes / 1e9 * units.price_disk_gb_month:,.2f}",
            ]
        )
    head = (
        "examples", "ingest, core h", "learn, core h", "one learner, days",
        "learn on a cluster, core h", "shards", "ingest and learn, $", "shards, $ a month",
    )  # fmt: skip
    return table(head, rows)


def live(units: argparse.Namespace, rates: Iterable[float]) -> str:
    """A stream that never ends: its rate is that of impressions, its peak ``headroom`` times it."""
    rows = []
    for rate in rates:
        events = rate * (1.0 + units.events_per_impression)
        join = events * units.headroom / units.join_events_per_cpu_s
        learn = rate * units.learn_us / 1e6 * units.headroom
        state = rate * units.hold_s * units.state_bytes
        cores = join + learn
        rows.append(
            [
                f"{rate:,.0f}",
                si(rate * DAY_S),
                si(events),
                f"{join:.2f}",
                f"{learn:.2f}",
                si(state, "B"),
                si(rate * DAY_S * units.shard_bytes, "B"),
                f"{cores * units.price_core_hour * 24:,.2f}",
                f"{state / 1e9 * units.price_gb_hour * 24:,.2f}",
            ]
        )
    head = (
        "impressions/s", "examples a day", "events/s", "join, cores", "learner, cores",
        "join state", "shards a day", "cores, $ a day", "state, $ a day",
    )  # fmt: skip
    return table(head, rows)


def memory(units: argparse.Namespace, ids: Iterable[float]) -> str:
    """The fused table: weights and one accumulator for each."""
    row = 4.0 * 2.0 * (units.dim + units.tasks)
    rows = []
    for n in ids:
        held = n * units.rows_per_id * row
        served = n * units.rows_per_id * 4.0 * (units.dim + units.tasks)
        machines = -(-held // (units.machine_gb * 1e9 * 0.7))
        rows.append(
            [
                f"{n:.0e}",
                f"{n * units.rows_per_id:.0e}",
                si(held, "B"),
                si(served, "B"),
                f"{machines:,.0f}",
                f"{held / 1e9 * units.price_gb_hour * 24:,.2f}",
            ]
        )
    head = (
        "live ids", "rows", "training (weights and slots)", "serving (weights)",
        f"servers of {units.machine_gb:.0f} GB, 70 % full",
        "training, $ a day",
    )  # fmt: skip
    return table(head, rows)


def serving(units: argparse.Namespace, rates: Iterable[float]) -> str:
    """Requests over the network, ``candidates`` rows each."""
    rows = []
    for rate in rates:
        line = [f"{rate:,.0f}"]
        for ms in units.request_ms:
            cores = rate * ms / 1e3 * units.headroom
            line += [f"{cores:,.1f}", f"{cores * units.price_core_hour * 24:,.0f}"]
        rows.append(line)
    head = ["requests/s"]
    for n, ms in zip((1, 32, 512), units.request_ms, strict=True):
        head += [f"cores, {n} rows ({ms} ms)", "$ a day"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--ingest-rows-per-cpu-s", type=float, default=160_000.0, help="octr bench ingest")
    add("--learn-us", type=float, default=12.0, help="octr bench learner: end to end")
    add("--cluster-us", type=float, default=160.0,
        help="python tests/benchmarks/cluster_curve.py: all processes")  # fmt: skip
    add("--join-events-per-cpu-s", type=float, default=280_000.0, help="octr bench live")
    add("--state-bytes", type=float, default=227.0, help="octr bench live: held_bytes_per_row")
    add("--shard-bytes", type=float, default=122.0, help="octr bench ingest: shard_bytes_per_row")
    add("--request-ms", type=float, nargs=3, default=[1.2, 1.7, 6.3],
        help="octr bench serving: CPU of a request of 1, 32 and 512 rows")  # fmt: skip
    add("--dim", type=int, default=16, help="embedding columns")
    add("--tasks", type=int, default=1, help="labels learned together")
    add("--rows-per-id", type=float, default=5.0, help="rows of the table per live id")
    add("--events-per-impression", type=float, default=0.07, help="clicks, conversions, ...")
    add("--hold-s", type=float, default=86_400.0 + 600.0, help="longest window and lateness")
    add("--headroom", type=float, default=2.0, help="peak over mean")
    add("--machine-gb", type=float, default=64.0, help="memory of a parameter server")
    add("--price-core-hour", type=float, default=0.05, help="dollars; an assumption, not measured")
    add("--price-gb-hour", type=float, default=0.005, help="of memory; likewise an assumption")
    add("--price-disk-gb-month", type=float, default=0.02, help="likewise an assumption")
    units = parser.parse_args()
    print("One pass over a log\n")
    print(backfill(units, (1e8, 1e9, 1e10, 1e11)))
    print("\nA live stream\n")
    print(live(units, (1e3, 1e4, 1e5, 1e6)))
    print("\nThe table\n")
    print(memory(units, (1e6, 1e7, 1e8, 1e9)))
    print("\nServing\n")
    print(serving(units, (1e2, 1e3, 1e4, 1e5)))


if __name__ == "__main__":
    main()
