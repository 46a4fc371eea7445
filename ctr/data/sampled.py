"""What is left of a row group once a sampler has dropped rows, and where these stood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.data.examples import Block


def thin(
    batch: pa.RecordBatch, block: Block, factors: NDArray[np.float32]
) -> tuple[pa.RecordBatch, Block]:
    """Returns the rows with a factor above 0, their weights multiplied by it.

    Args:
        batch: Raw columns, n rows.
        block: The same rows, before encoding.
        factors: float32[n].
    """
    kept = np.flatnonzero(factors)
    mask = pa.array(factors > 0)
    query = None if block.query is None else block.query[kept]
    thinned = Block(
        block.ids[kept],
        block.numeric[kept],
        block.labels[kept],
        block.weights[kept] * factors[kept],
        block.time_us[kept],
        query,
        {name: values[kept] for name, values in block.side.items()},
        block.frame.filter(mask),
    )
    return batch.filter(mask), thinned


def count_skipped(
    block: Block, factors: NDArray[np.float32], skip: int, left_out: int
) -> tuple[Block, int]:
    """Notes before each kept row how many were left out, from row ``skip`` of the group on.

    Args:
        block: The kept rows of the group.
        factors: float32[n] of all its rows.
        skip: Rows of the group that are passed over.
        left_out: Rows left out since the last one kept, in the groups before.

    Returns:
        The kept rows from ``skip`` on, and how many rows were left out since the last of them.
    """
    kept = np.flatnonzero(factors)
    kept = kept[np.searchsorted(kept, skip) :]
    block = block.cut(len(block.time_us) - len(kept), len(block.time_us))
    if not len(kept):
        return block, left_out + len(factors) - skip
    skipped = np.diff(kept, prepend=skip - 1) - 1
    skipped[0] += left_out
    return replace(block, skipped=skipped), len(factors) - 1 - int(kept[-1])
