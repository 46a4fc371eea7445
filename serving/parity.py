"""Does the model on disk predict what the learner predicts?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ctr.data import manifest
from ctr.data.manifest import Shard
from ctr.data.reader import verify
from ctr.encoding import Encoder
from ctr.errors import CheckpointError, ExportError, StreamError
from ctr.learner import Learner
from serving.warmup import made_up_rows

#: Largest difference of a probability that an export may have.
TOLERANCE = 1e-6
#: Examples that are compared.
N_EXAMPLES = 4096
#: Made-up rows whose scores the manifest keeps.
CHECK_ROWS = 64


class ParityError(ExportError):
    """An export that ran, but does not predict as its learner does."""

    exit_code = 1


@dataclass(frozen=True)
class Parity:
    """Outcome of a comparison.

    Attributes:
        examples: Examples that were scored by both.
        max_abs_difference: Largest absolute difference of a probability.
    """

    examples: int
    max_abs_difference: float


def last_examples(data_dir: Path, learner: Learner, n: int = N_EXAMPLES) -> pa.Table:
    """Reads the raw feature columns of the last ``n`` committed examples, or of all if fewer.

    Raises:
        StreamError: the data cannot be read, or there are none.
        CheckpointError: the data have another schema than the learner.
    """
    schema, shards = manifest.load(data_dir)
    if schema.fingerprint() != learner.schema.fingerprint():
        raise CheckpointError(
            f"{data_dir} has schema {schema.fingerprint()} ({schema.name}), but the run was "
            f"trained with {learner.schema.fingerprint()}. Pass its own data with --data."
        )
    if not shards:
        raise StreamError(f"{data_dir} holds no examples to compare predictions on.")
    return last_rows(data_dir, shards, list(learner.encoder.columns), n)


def last_rows(data_dir: Path, shards: Sequence[Shard], columns: list[str], n: int) -> pa.Table:
    """Reads the last ``n`` rows of shards, or all if fewer.

    Raises:
        StreamError: a shard is missing or damaged.
    """
    parts: list[pa.Table] = []
    missing = n
    for shard in reversed(shards):
        path = data_dir / shard.file
        verify(path, shard)
        with pq.ParquetFile(path) as file:
            for group in reversed(range(file.num_row_groups)):
                table = file.read_row_group(group, columns=columns)
                parts.append(table.slice(max(0, table.num_rows - missing)))
                missing -= parts[-1].num_rows
                if not missing:
                    return pa.concat_tables(reversed(parts))
    return pa.concat_tables(reversed(parts))


def check_parity(
    learner: Learner,
    predict: Callable[[pa.Table], NDArray[np.float32]],
    examples: pa.Table,
    what: str = "the exported model",
) -> Parity:
    """Scores examples with the learner and with what was exported.

    Raises:
        ParityError: a probability is not finite or differs by more than ``TOLERANCE``.
    """
    encoded = learner.encoder.encode(examples, "the last examples")
    expected = learner.predict(encoded.ids, encoded.numeric)
    served = predict(examples).reshape(expected.shape)
    difference = float(np.max(np.abs(served.astype(np.float64) - expected), initial=0.0))
    # Written so that a NaN on either side fails too.
    if not difference <= TOLERANCE:
        raise ParityError(
            f"{what} differs from the learner by up to {difference:.3g} in the "
            f"probability of one of the last {examples.num_rows:,} examples; at most "
            f"{TOLERANCE:g} is allowed. Nothing was published."
        )
    return Parity(examples.num_rows, difference)


def check_scores(learner: Learner) -> list[list[float]]:
    """Returns what the learner predicts for made-up rows, float[CHECK_ROWS][T].

    They go into the manifest: whoever loads the model, anywhere and whenever, can tell whether it
    still predicts what it did.
    """
    encoded = learner.encoder.encode(check_rows(learner.encoder), "the check rows")
    return learner.predict(encoded.ids, encoded.numeric).astype(float).tolist()


def check_rows(encoder: Encoder) -> pa.RecordBatch:
    """Returns the made-up rows that ``check_scores`` are of."""
    rows = made_up_rows(encoder, CHECK_ROWS)
    return pa.RecordBatch.from_pydict(
        {name: column if column.ndim == 1 else column.tolist() for name, column in rows.items()}
    )
