"""Batch scoring: Parquet in, the same rows with probabilities out, on any Beam runner."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.ml.inference.base import ModelHandler, RunInference

from ctr.data.manifest import write_atomically
from ctr.errors import ConfigError, SchemaError, StreamError
from serving.predictor import Predictor
from streaming.pipeline import own_errors, pipeline_options

SUMMARY = "score.json"
#: Rows per call of the model.
_ROWS = 8192


@dataclass(frozen=True)
class Piece:
    """One row group of an input file.

    Attributes:
        path: The file.
        group: Number of the row group.
        output: Name of the file that its scored rows go to.
    """

    path: str
    group: int
    output: str


@dataclass(frozen=True)
class Scored:
    """Rows with their probabilities.

    Attributes:
        output: Name of their file.
        table: The rows.
    """

    output: str
    table: pa.Table


class PredictorHandler(ModelHandler[Piece, Scored, Predictor]):
    """Lets ``RunInference`` load an exported model once per worker.

    Args:
        model: The version, a path that every worker can read.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self._path = model

    def load_model(self) -> Predictor:
        """Loads the version after checking its checksums."""
        return Predictor.load(self._path)

    def run_inference(
        self, batch: Sequence[Piece], model: Predictor, inference_args: Any = None
    ) -> Iterator[Scored]:
        """Yields the scored rows of each piece."""
        del inference_args
        for piece in batch:
            yield Scored(piece.output, score_table(model, _read(piece), piece.path))

    def batch_elements_kwargs(self) -> dict[str, int]:
        """A piece is a batch already."""
        return {"min_batch_size": 1, "max_batch_size": 1}


def score_table(predictor: Predictor, table: pa.Table, source: str) -> pa.Table:
    """Returns the table with one column ``prob_<label>``, float32, per label of the model.

    Raises:
        SchemaError: a column is missing or cannot be read as its feature, or is there already.
    """
    labels = predictor.manifest["labels"]
    names = [f"prob_{label}" for label in labels]
    for name in names:
        if name in table.column_names:
            raise SchemaError(f"{source} has a column {name!r} already. Rename it.")
    columns = table.select(list(_present(predictor, table)))
    # No batch at all, for no rows, would leave the columns unchecked.
    batches = columns.to_batches(max_chunksize=_ROWS) or [columns]
    parts = [predictor.predict(part).reshape(part.num_rows, len(labels)) for part in batches]
    prob = np.concatenate(parts)
    for place, name in enumerate(names):
        table = table.append_column(name, pa.array(prob[:, place]))
    return table


def score(
    model: Path, inputs: Sequence[str], output: Path, runner_options: Iterable[str] = ()
) -> dict[str, Any]:
    """Scores Parquet files with an exported model.

    Args:
        model: A version, or a folder of versions, whose newest is taken.
        inputs: Parquet files, or folders of them.
        output: A new folder; one Parquet file per row group of the input.
        runner_options: Beam's own.

    Returns:
        What ``score.json`` says: version, files and rows.

    Raises:
        ConfigError: the output is not empty.
        ExportError: the model cannot be used.
        SchemaError: a file lacks a column of the model.
        StreamError: a file cannot be read.
    """
    predictor = Predictor.load(model)
    pieces, rows = _pieces(inputs, predictor)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty. Name a new folder.")
    output.mkdir(parents=True, exist_ok=True)
    handler = PredictorHandler(str(predictor.folder.resolve()))
    root = beam.Pipeline(options=pipeline_options(list(runner_options)))
    _ = (
        root
        | "Pieces" >> beam.Create(pieces)
        | "Spread" >> beam.Reshuffle()
        | "Predict" >> RunInference(handler)
        | "Write" >> beam.Map(write_scored, str(output.resolve()))
    )
    with own_errors():
        root.run().wait_until_finish()
    summary = {
        "model": str(predictor.folder),
        "run": predictor.manifest["run"],
        "labels": predictor.manifest["labels"],
        "files": len(pieces),
        "rows": rows,
    }
    # Last: a folder without it is a job that did not end.
    write_atomically(output / SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def write_scored(scored: Scored, folder: str) -> None:
    """Writes the rows of a piece; a retried bundle replaces the file by the same one."""
    final = Path(folder, scored.output)
    partial = final.with_name(f".{scored.output}.{uuid.uuid4().hex}")
    try:
        pq.write_table(scored.table, partial)
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def _pieces(inputs: Sequence[str], predictor: Predictor) -> tuple[list[Piece], int]:
    files = [file for name in inputs for file in _files(Path(name))]
    pieces, rows = [], 0
    for number, file in enumerate(files):
        try:
            metadata = pq.read_metadata(file)
        except (OSError, pa.ArrowException) as error:
            raise StreamError(f"{file} is no readable Parquet file: {error}.") from None
        # Before any work: what is wrong with a column is found on no row at all.
        empty = pq.read_schema(file).empty_table()
        score_table(predictor, empty, str(file))
        rows += metadata.num_rows
        pieces += [
            Piece(str(file.resolve()), group, f"part-{number:05d}-{group:05d}.parquet")
            for group in range(metadata.num_row_groups)
        ]
    if not pieces:
        raise StreamError(f"no rows in {', '.join(inputs)}. Name Parquet files or folders of them.")
    return pieces, rows


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.rglob("*.parquet"))
    if not path.is_file():
        raise StreamError(f"{path} is neither a file nor a folder.")
    return [path]


def _read(piece: Piece) -> pa.Table:
    try:
        with pq.ParquetFile(piece.path) as file:
            return file.read_row_group(piece.group)
    except (OSError, pa.ArrowException) as error:
        raise StreamError(f"{piece.path}, row group {piece.group}: {error}.") from None


def _present(predictor: Predictor, table: pa.Table) -> Iterator[str]:
    """Yields the model's columns as far as they are there; the encoder tells what is missing."""
    for name in predictor.encoder.columns:
        if name in table.column_names:
            yield name
