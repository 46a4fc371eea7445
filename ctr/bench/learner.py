"""``octr bench learner``: the compiled step against its floor, its input and the usual ways."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.bench.record import add_output_argument, write_record
from ctr.bench.timing import Arm, Target, measure, ratio, table
from ctr.errors import ConfigError, nearest
from ctr.option_types import names, positive_int

if TYPE_CHECKING:
    from ctr.bench.stream import Rows

HELP = "CPU time per example: step, floor, end to end, Keras, TFRS, table size"
#: What ``--only`` takes.
PARTS = ("floor", "input", "keras", "tfrs", "table")
#: Rows that Keras' arms work through; they are slow and need no more.
_PEER_ROWS = 16_384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``octr bench learner``."""
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        nargs="+",
        default=[512, 1024],
        metavar="B",
        help="the floor is measured at each, all else at the first (512 1024)",
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=5, help="measured rounds per arm (5)"
    )
    parser.add_argument(
        "--rows",
        type=positive_int,
        default=65_536,
        help="examples of the stream; an arm works through them once a round",
    )
    parser.add_argument(
        "--only",
        type=names,
        default=PARTS,
        metavar="A,B",
        help=f"parts to measure: {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=1,
        help="threads inside one operation (1: none of the time is waiting)",
    )
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table and writes JSON.

    Returns:
        0 if every target is met, otherwise 1.
    """
    for part in args.only:
        if part not in PARTS:
            raise ConfigError(f"--only: no part {part!r}: {nearest(part, PARTS)}")
    from ctr.quiet import start_quietly

    start_quietly(args.threads)
    timings: dict[str, list[float]] = {}
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as folder:
        for group in groups(args.only, args.batch_size, args.rows, Path(folder)):
            measured = measure(group.arms, args.rounds)
            timings |= measured
            targets += [
                Target(c.name, ratio(measured, c.above, c.below), c.bar, c.at_least)
                for c in group.comparisons
            ]
    print(table(timings, targets))
    write_record(
        args.output, threads=args.threads, rounds=args.rounds, rows=args.rows,
        cpu_us_per_example=timings, targets=[target.as_dict() for target in targets],
    )  # fmt: skip
    return 0 if all(target.passed for target in targets) else 1


@dataclass(frozen=True)
class Comparison:
    """Cost of arm ``above`` over that of arm ``below``, and its bar."""

    name: str
    above: str
    below: str
    bar: float
    at_least: bool = True


@dataclass(frozen=True)
class Group:
    """Arms that take turns, and what is read off them."""

    arms: Sequence[Arm]
    comparisons: Sequence[Comparison]


def groups(parts: Sequence[str], batch_sizes: Sequence[int], n_rows: int, folder: Path) -> Any:
    """Yields the groups to measure; arms are built when their group's turn comes."""
    from ctr.bench.stream import generate

    rows = generate(n_rows)
    first = batch_sizes[0]
    if "floor" in parts:
        for size in batch_sizes:
            yield _floor(rows, size)
    if "input" in parts:
        yield _end_to_end(rows, first, folder)
    if "keras" in parts or "tfrs" in parts:
        yield _peers(rows, first, parts)
    if "table" in parts:
        yield _table_size(rows, first)


def _floor(rows: Rows, batch_size: int) -> Group:
    from ctr.bench.arms import gemm, step

    step_arm = step(rows, batch_size)
    # Which floor is the lower one depends on the machine, and the lower one is the floor.
    floors = [gemm(batch_size, step_arm.examples, compiled) for compiled in (False, True)]
    return Group(
        [*floors, step_arm],
        [
            Comparison(f"floor ({how}) / step, B={batch_size}", floor.name, step_arm.name, 0.70)
            for how, floor in zip(("op by op", "compiled"), floors, strict=True)
        ],
    )


def _end_to_end(rows: Rows, batch_size: int, folder: Path) -> Group:
    from ctr.bench.arms import end_to_end, step

    inner = step(rows, batch_size, name=f"step in memory, B={batch_size}")
    whole = end_to_end(rows, batch_size, folder)
    name = f"step / end to end from Parquet, B={batch_size}"
    return Group([inner, whole], [Comparison(name, inner.name, whole.name, 0.88)])


def _peers(rows: Rows, batch_size: int, parts: Sequence[str]) -> Group:
    from ctr.bench import peers
    from ctr.bench.arms import step
    from ctr.bench.stream import Rows

    n = _PEER_ROWS
    some = Rows(rows.codes[:n], rows.numeric[:n], rows.label[:n])
    n = len(some.label)
    ours = step(rows, batch_size, name=f"step beside Keras, B={batch_size}")
    arms, comparisons = [ours], []
    if "keras" in parts:
        name = f"Keras predict_on_batch + train_on_batch, B={batch_size}"
        arms.append(Arm(name, peers.keras_predict_then_train(some, batch_size), n))
        comparisons.append(
            Comparison(f"Keras predict + train / step, B={batch_size}", name, ours.name, 3.5)
        )
        arms.append(Arm(f"Keras fit, B={batch_size}", peers.keras_fit(some, batch_size), n))
    if "tfrs" in parts:
        name = f"TFRS tasks.Ranking fit, B={batch_size}"
        arms.append(Arm(name, peers.tfrs_fit(some, batch_size), n))
        comparisons.append(Comparison(f"TFRS fit / step, B={batch_size}", name, ours.name, 1.7))
    return Group(arms, comparisons)


def _table_size(rows: Rows, batch_size: int) -> Group:
    from ctr.bench.arms import step

    small, large = (
        step(rows, batch_size, 1 << bits, f"step, table of 2^{bits} rows, B={batch_size}")
        for bits in (18, 24)
    )
    name = f"2^24 rows / 2^18 rows, B={batch_size}"
    return Group([small, large], [Comparison(name, large.name, small.name, 1.3, at_least=False)])
