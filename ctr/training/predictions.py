"""The progressive predictions of a run as Parquet, written once whatever crashes between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.data.examples import Examples
from ctr.data.manifest import sync
from ctr.errors import ConfigError
from ctr.training.run import PREDICTIONS


class PredictionLog:
    """Collects predictions between checkpoints and writes one part file at each.

    Args:
        run: The run folder.
        labels: Learned labels, T of them.
        start: Position the run (re)starts from; parts beyond it will be written again.

    Raises:
        ConfigError: predictions before ``start`` were not kept.
    """

    def __init__(self, run: Path, labels: tuple[str, ...], start: int) -> None:
        self._folder = run / PREDICTIONS
        self._final = run / "predictions.parquet"
        self._labels = labels
        self._start = self._stop = start
        self._tables: list[pa.Table] = []
        self._folder.mkdir(exist_ok=True)
        covered = 0
        for part in sorted(self._folder.iterdir()):
            if not part.name[0].isdigit() or _span(part)[0] >= start:
                part.unlink()
            elif _span(part)[0] == covered:
                covered = _span(part)[1]
        if covered != start:
            raise ConfigError(
                f"{self._folder} has no predictions of examples {covered:,} to {start:,}, which "
                "were learned without --save-predictions. Leave that option out, or train into a "
                "new --run folder."
            )

    def add(self, examples: Examples, probs: NDArray[np.float32]) -> None:
        """Adds a chunk; ``probs`` is float32[n, T] in stream order."""
        blocks = examples.blocks
        columns: dict[str, pa.ChunkedArray | pa.Array] = {
            "example_id": pa.chunked_array(
                [b.frame.column("example_id").cast(pa.string()) for b in blocks]
            ),
            "event_time": pa.array(np.concatenate([b.time_us for b in blocks])).cast(
                pa.timestamp("us", "UTC")
            ),
        }
        labels = np.concatenate([b.scored_labels for b in blocks])
        for t, name in enumerate(self._labels):
            suffix = "" if t == 0 else f"_{name}"
            known = pa.array(labels[:, t].astype(np.int8), mask=labels[:, t] < 0)
            columns[f"label{suffix}"] = known
            columns[f"prob{suffix}"] = pa.array(np.ascontiguousarray(probs[:, t]))
        columns["weight"] = pa.array(np.concatenate([b.weights for b in blocks]))
        self._tables.append(pa.table(columns))
        self._stop = examples.stop

    def flush(self) -> None:
        """Writes what was added since the last call; call before a checkpoint is saved."""
        if not self._tables:
            return
        part = self._folder / f"{self._start:015d}-{self._stop:015d}.parquet"
        temporary = part.with_name(f".{part.name}")
        pq.write_table(pa.concat_tables(self._tables), temporary, compression="zstd")
        sync(temporary)
        temporary.replace(part)
        sync(self._folder)
        self._start, self._tables = self._stop, []

    def finished(self) -> bool:
        """True if ``predictions.parquet`` holds all predictions so far."""
        if not self._final.is_file():
            return False
        n_rows: int = pq.read_metadata(self._final).num_rows
        return n_rows == self._stop

    def finish(self) -> Path:
        """Joins all parts into ``predictions.parquet`` and returns its path."""
        self.flush()
        temporary = self._final.with_name(f".{self._final.name}")
        parts = sorted(self._folder.glob("[0-9]*.parquet"))
        with pq.ParquetWriter(temporary, pq.read_schema(parts[0]), compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part))
        sync(temporary)
        temporary.replace(self._final)
        return self._final


def _span(part: Path) -> tuple[int, int]:
    start, stop = part.stem.split("-")
    return int(start), int(stop)
