"""The process that runs one arm with one seed: ``python -m ctr.harness.worker UNIT``.

Every unit has its own process, so that memory and CPU time are its own and a crash takes nothing
else down.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ctr.config import to_plain
from ctr.data.manifest import write_atomically

UNIT = "unit.json"
RESULT = "result.json"
DONE = "examples_done"
ERROR = "error.txt"


def main(folder: Path) -> None:
    """Runs the unit that ``folder/unit.json`` describes and writes its results beside it."""
    from ctr.quiet import start_quietly

    unit = json.loads((folder / UNIT).read_text())
    sys.path.append(unit["working_directory"])
    # One thread each: units run side by side, and CPU times stay comparable.
    start_quietly(threads=unit["threads"])
    from ctr.errors import CtrError

    try:
        if unit["task"] == "costs":
            _time(folder, unit)
        else:
            _run(folder, unit)
    except CtrError as error:
        write_atomically(folder / ERROR, f"{type(error).__name__}: {error}\n".encode())
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _run(folder: Path, unit: dict[str, Any]) -> None:
    from ctr.api import Reporting
    from ctr.harness import arms, scores
    from ctr.harness.experiment import parse
    from ctr.harness.replay import inference_us, launch_batches, replay
    from ctr.harness.replicas import HandOver, replica
    from ctr.harness.stream import open_stream
    from ctr.learner import Learner
    from ctr.report.content import json_ready

    experiment = parse(unit["experiment"])
    stream = open_stream(experiment, unit["rows"])
    built = arms.build_arm(experiment, experiment.arm(unit["arm"]), stream.schema, unit["choice"])
    n_batches = launch_batches(
        stream, built.timing, built.recipe.batch_size, built.recipe.sampler.drops
    )
    own = replica(experiment, experiment.arm(unit["arm"]), unit["seed"])
    learner = Learner(built.recipe, stream.schema, own.seed, experiment.labels, n_batches)
    hand_over = None
    if own.warm_start is not None and own.common_seed is not None:
        common = Learner(built.recipe, stream.schema, own.common_seed, experiment.labels, n_batches)
        hand_over = HandOver(common, own.warm_start.rows, own.warm_start.parts)
    written = time.monotonic()

    def progress(done: int) -> None:
        nonlocal written
        if time.monotonic() - written > 0.5:
            written = time.monotonic()
            (folder / DONE).write_text(str(done))

    start = time.monotonic()
    found = replay(learner, stream, unit["burn_in"], built.timing, progress, own.order, hand_over)
    wall_s = time.monotonic() - start
    sums = {
        label: scores.bucket_sums(found.observed, found.prob[:, task], task, experiment.window_s)
        for task, label in enumerate(learner.labels)
    }
    result = {
        "unit": unit["id"],
        "arm": unit["arm"],
        "seed": unit["seed"],
        "labels": list(learner.labels),
        "examples": stream.rows,
        "scored": len(found.prob),
        "metrics": {label: scores.values(part) for label, part in sums.items()},
        "cpu_us_per_example": found.cost.cpu_us_per_example,
        "inference_us_per_example": inference_us(learner, found.sample),
        "compile_cpu_s": found.cost.compile_cpu_s,
        "parameters": learner.n_parameters(),
        "peak_memory_bytes": found.peak_memory_bytes,
        "learned_share": found.cost.share,
        "effective_share": found.cost.effective,
        "wall_s": wall_s,
        "recipe": to_plain(built.recipe),
        "probes": {
            f"{place}.{type(probe).__name__}": probe.report()
            for place, probe in enumerate(built.recipe.probes)
        }
        | {
            type(state).__name__: state.report()
            for state in learner.submodules
            if isinstance(state, Reporting)
        },
    }
    start_us, length_us = scores.bucket_edges(
        int(found.observed.time_us[0]), int(found.observed.time_us[-1]), experiment.window_s
    )
    result["buckets"] = {"start_us": start_us, "length_us": length_us}
    result["slice_names"] = found.observed.slice_names
    arrays = {f"{label}/{k}": v for label, part in sums.items() for k, v in part.items()}
    with (folder / "sums.npz.part").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    (folder / "sums.npz.part").rename(folder / "sums.npz")
    with (folder / "predictions.npy.part").open("wb") as file:
        np.save(file, found.prob)
    (folder / "predictions.npy.part").rename(folder / "predictions.npy")
    # Last of all: a unit with a result has everything.
    text = json.dumps(json_ready(result), indent=1)
    write_atomically(folder / RESULT, text.encode())


def _time(folder: Path, unit: dict[str, Any]) -> None:
    from ctr.harness import arms
    from ctr.harness.costs import paired_ratios
    from ctr.harness.experiment import BASE, parse
    from ctr.harness.stream import open_stream
    from ctr.learner import Learner

    experiment = parse(unit["experiment"])
    stream = open_stream(experiment)
    pair = (
        arms.build_arm(experiment, experiment.arm(BASE), stream.schema, unit["base_choice"]),
        arms.build_arm(experiment, experiment.arm(unit["arm"]), stream.schema, unit["choice"]),
    )
    base, arm = (
        Learner(built.recipe, stream.schema, unit["seed"], experiment.labels) for built in pair
    )
    ratios = paired_ratios(base, arm, stream, experiment.cost_rounds)
    result = {"unit": unit["id"], "arm": unit["arm"], "ratios": ratios}
    write_atomically(folder / RESULT, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
