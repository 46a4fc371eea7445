"""Encoded rows on their way to the learner: blocks, and the chunks cut from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Chunk(NamedTuple):
    """``K`` batches in one set of arrays, the unit that is fed to a launch.

    Attributes:
        ids: int32[K, B, S].
        numeric: float32[K, B, M]; NaN means missing.
        labels: float32[K, B, T] in {0, 1}; -1 means unknown.
        weights: float32[K, B]; 0 marks padding.
        side: Side columns ``[K, B]`` by name, those that the recipe asks for.
    """

    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    side: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Block:
    """Encoded rows, with what reports need beside them.

    Attributes:
        ids: int32[n, S].
        numeric: float32[n, M]; NaN means missing.
        labels: float32[n, T]; -1 means unknown.
        weights: float32[n], importance divided by the sampling rate.
        time_us: int64[n], event time.
        query: uint64[n], hash of the query id, or None where the stream has none.
        side: Side columns that the recipe asks for, by name.
        frame: The raw columns of example id and slices, and ``correction`` where there is one.
        skipped: int64[n], rows of the stream that a sampler left out right before each row; None
            where none were.
    """

    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    time_us: NDArray[np.int64]
    query: NDArray[np.uint64] | None
    side: Mapping[str, NDArray[Any]]
    frame: pa.RecordBatch
    skipped: NDArray[np.int64] | None = None

    @property
    def scored_labels(self) -> NDArray[np.float32]:
        """float32[n, T], labels to score predictions by: unknown in rows that correct others.

        Such a row repeats an example that was predicted, scored and learned before.
        """
        if "correction" not in self.frame.schema.names:
            return self.labels
        again = self.frame.column("correction").to_numpy(zero_copy_only=False) == 1
        return np.where(again[:, None], np.float32(-1), self.labels)

    @property
    def n_skipped(self) -> int:
        """Rows of the stream that a sampler left out before these."""
        return 0 if self.skipped is None else int(self.skipped.sum())

    def cut(self, start: int, stop: int) -> Block:
        """Returns the rows ``start .. stop - 1`` without copying."""

        def part(values: Any) -> Any:
            return None if values is None else values[start:stop]

        side = {name: values[start:stop] for name, values in self.side.items()}
        return Block(
            part(self.ids), part(self.numeric), part(self.labels), part(self.weights),
            part(self.time_us), part(self.query), side,
            self.frame.slice(start, stop - start), part(self.skipped),
        )  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """One chunk of the stream.

    Attributes:
        blocks: The rows, in order, as cut from the row groups they came from.
        start: Rows of the stream before this chunk.
        n_rows: Rows in this chunk.
        counts: What the encoder counted since the chunk before.
        places: int64[n], where each row stands among the ``K * B`` places; None means in order
            from the first.
        n_skipped: Rows of the stream between ``start`` and ``stop`` that a sampler left out.
    """

    blocks: tuple[Block, ...]
    start: int
    n_rows: int
    counts: dict[str, int]
    places: NDArray[np.int64] | None = None
    n_skipped: int = 0

    @property
    def stop(self) -> int:
        """Position after this chunk."""
        return self.start + self.n_rows + self.n_skipped

    def chunk(self, shape: tuple[int, int]) -> Chunk:
        """Returns the rows as ``K`` batches of ``B``; places without a row are 0."""
        blocks = self.blocks
        return Chunk(
            self._placed([block.ids for block in blocks], shape),
            self._placed([block.numeric for block in blocks], shape),
            self._placed([block.labels for block in blocks], shape),
            self._placed([block.weights for block in blocks], shape),
            {n: self._placed([b.side[n] for b in blocks], shape) for n in blocks[0].side},
        )

    def rows(self, batches: NDArray[Any]) -> NDArray[Any]:
        """Returns what a launch gave back, ``[K, B, ...]``, in stream order, ``[n, ...]``."""
        flat = batches.reshape((-1, *batches.shape[2:]))
        return flat[: self.n_rows] if self.places is None else flat[self.places]

    def _placed(self, parts: list[NDArray[Any]], shape: tuple[int, int]) -> NDArray[Any]:
        size = shape[0] * shape[1]
        if self.places is None and size > self.n_rows:
            parts = [*parts, np.zeros((size - self.n_rows, *parts[0].shape[1:]), parts[0].dtype)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.places is not None:
            spread = np.zeros((size, *joined.shape[1:]), joined.dtype)
            spread[self.places] = joined
            joined = spread
        return np.ascontiguousarray(joined).reshape((*shape, *joined.shape[1:]))
