"""The stream of an experiment: where its data are, and the reader that every arm shares."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr import __version__
from ctr.config import content_hash, to_plain
from ctr.data import manifest
from ctr.data.examples import Examples
from ctr.data.manifest import Shard
from ctr.data.reader import ShardReader
from ctr.errors import StreamError
from ctr.harness.experiment import Experiment, Simulate
from ctr.harness.teacher import taught
from ctr.learner import Learner
from ctr.schema import Schema, schema_to_dict
from ctr.simulator import write_data
from ctr.simulator.settings import load_world

#: Names another folder for simulated and taught streams than ``~/.cache/online-ctr``.
CACHE_VARIABLE = "OCTR_CACHE"


@dataclass(frozen=True)
class Stream:
    """The examples of an experiment.

    Attributes:
        data_dir: Data folder.
        schema: Its schema, with the experiment's slices.
        shards: Committed shards.
        first: Examples left out at the start.
        rows: Examples used.
    """

    data_dir: Path
    schema: Schema
    shards: tuple[Shard, ...]
    first: int
    rows: int

    def identity(self) -> str:
        """Returns a hash of what the examples are, wherever the folder lies."""
        return content_hash(
            {
                "schema": schema_to_dict(self.schema),
                "shards": [shard.sha256 for shard in self.shards],
                "first": self.first,
                "rows": self.rows,
            }
        )

    def chunks(self, learner: Learner) -> Iterator[Examples]:
        """Yields the chunks a learner asks for, just as ``octr train`` reads them."""
        reader = ShardReader(
            self.data_dir, self.schema, self.shards, learner.encoder, learner.labels,
            side=learner.side, whole_queries=learner.whole_queries,
        )  # fmt: skip
        left = self.rows
        for examples in reader.chunks(learner.chunk_shape, self.first):
            yield cut(examples, left)
            left -= examples.n_rows
            if left <= 0:
                return

    def label_times(self, labels: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Returns when the event behind each label happened, int64[n] microseconds, -1 for none.

        Labels whose shards have no ``<label>_time`` column are left out.
        """
        found: dict[str, list[NDArray[np.int64]]] = {}
        for shard in self.shards:
            with pq.ParquetFile(self.data_dir / shard.file) as file:
                for label in labels:
                    if f"{label}_time" in file.schema_arrow.names:
                        column = file.read([f"{label}_time"]).column(0).cast(pa.int64())
                        found.setdefault(label, []).append(column.fill_null(-1).to_numpy())
        used = slice(self.first, self.first + self.rows)
        return {label: np.concatenate(parts)[used] for label, parts in found.items()}


def cut(examples: Examples, n_rows: int) -> Examples:
    """Returns the chunk with its first ``n_rows`` rows only."""
    if n_rows >= examples.n_rows:
        return examples
    blocks, left = [], n_rows
    for block in examples.blocks:
        take = min(left, len(block.time_us))
        if take:
            blocks.append(block.cut(0, take))
        left -= take
    places = None if examples.places is None else np.asarray(examples.places)[:n_rows]
    return replace(examples, blocks=tuple(blocks), n_rows=n_rows, places=places)


def open_stream(experiment: Experiment, rows: int = 0) -> Stream:
    """Finds the data, simulating them first where the experiment says so.

    Args:
        experiment: The experiment.
        rows: Use no more examples than this; 0 leaves the experiment's own bound.

    Raises:
        StreamError: there are no examples left to score.
    """
    spec = experiment.stream
    data_dir = simulated(spec.simulate) if spec.simulate else Path(spec.data)
    if spec.teacher is not None:
        data_dir = taught(data_dir, spec.teacher, experiment.labels, cache())
    schema, shards = manifest.load(data_dir)
    if experiment.slices is not None:
        schema = replace(schema, slices=experiment.slices)
    available = sum(shard.n_rows for shard in shards) - spec.first
    wanted = min([max(available, 0), *(bound for bound in (spec.rows, rows) if bound)])
    if wanted <= (0 if rows else experiment.burn_in):
        raise StreamError(
            f"experiment {experiment.name!r}: {max(available, 0):,} examples from number "
            f"{spec.first:,} of {data_dir}, of which {wanted:,} are used, leave none to score "
            f"after a burn-in of {experiment.burn_in:,}. Lower stream.burn_in (or tune.rows), or "
            "use more data."
        )
    return Stream(data_dir, schema, shards, spec.first, wanted)


def simulated(spec: Simulate) -> Path:
    """Returns a data folder with the simulated stream, made at the first call for it."""
    world = load_world(None, spec.set)
    plain = {
        "world": to_plain(world),
        "impressions": spec.impressions,
        "seed": spec.seed,
        "version": __version__,
    }
    final = cache() / f"simulated-{content_hash(plain)}"
    if (final / manifest.MANIFEST).is_file():
        return final
    partial = final.with_name(f".{final.name}.{os.getpid()}")
    write_data(partial, spec.impressions, spec.seed, world)
    (partial / "simulation.json").write_text(json.dumps(plain, indent=1))
    try:
        partial.rename(final)
    except OSError:  # another process was faster with the same stream
        if not (final / manifest.MANIFEST).is_file():
            raise
        shutil.rmtree(partial)
    return final


def cache() -> Path:
    """Returns the folder of simulated and taught streams."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "online-ctr")
