"""From measured affinities to arms: ``python -m research_modules.task_grouping.choose REPLAY``.

Reads the report of a replay that measured with ``task_affinity`` and prints, for each number of
networks, the best groups as a line for an experiment file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctr.errors import CtrError
from ctr.harness.result import read_report
from research_modules.task_grouping.affinity import mean_affinity
from research_modules.task_grouping.selection import Cover, best_cover, stability


def sums(report: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the affinity sums and counts float64[N, T, T] of all seeds by part of the window.

    Raises:
        CtrError: nothing was measured in this replay.
    """
    found = [
        probe
        for arm in report["arms"]
        for probes in arm["probes"].values()
        for name, probe in probes.items()
        if name.endswith("MeasuredState")
    ]
    if not found:
        raise CtrError("this replay has measured nothing. Give an arm the module task_affinity.")
    ratio, count = (np.sum([probe[key] for probe in found], axis=0) for key in ("ratio", "count"))
    return ratio, count


def line(cover: Cover) -> str:
    """Returns the cover as a module of an experiment file."""
    groups = [list(group) for group in cover.groups]
    return f'{{use = "task_grouping", groups = {groups}, served = {list(cover.served)}}}'


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the matrix and the choices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("replay", type=Path, help="folder of a replay, or its report.json")
    parser.add_argument("--budget", type=int, default=3, help="most networks")
    parser.add_argument("--alone", type=float, default=0.0, help="worth of a label that is alone")
    given = parser.parse_args(arguments)
    report = read_report(given.replay)
    ratio, count = sums(report)
    affinity = mean_affinity(ratio, count)
    names = report["labels"]
    print("affinity, row = label that steps, column = label that is measured")
    print(" " * 16 + "".join(f"{name[:12]:>14}" for name in names))
    for name, row in zip(names, affinity, strict=True):
        print(f"{name[:14]:<16}" + "".join(f"{value:>14.3e}" for value in row))
    for budget in range(1, given.budget + 1):
        cover = best_cover(affinity, budget, given.alone)
        chosen = stability(ratio, count, budget, given.alone, 200).get(cover.groups, 0.0)
        print(f"{budget} networks, score {cover.score:.3e}, chosen in {chosen:.0%} of resamples:")
        print(f"  modules = [{line(cover)}]")


if __name__ == "__main__":
    main()
