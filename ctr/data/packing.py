"""Cuts a stream of blocks into the rows of chunks, with or without regard to queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr.data.examples import Block

#: Decides how many of the waiting rows a chunk takes and where they stand in it.
Cut = Callable[[NDArray[Any], tuple[int, int], Counter[str]], tuple[int, NDArray[np.int64]]]


def pack(
    blocks: Iterator[Block], shape: tuple[int, int], cut: Cut | None, counts: Counter[str]
) -> Iterator[tuple[list[Block], NDArray[np.int64] | None]]:
    """Yields the blocks of each chunk, and the places of their rows (None: in order).

    Args:
        blocks: The stream.
        shape: Batches per chunk and places per batch, (K, B).
        cut: How chunks are cut; None fills every place.
        counts: Where ``cut`` counts what was out of the ordinary.
    """
    size = shape[0] * shape[1]
    # One row more than a chunk holds shows whether the last query in it is complete.
    wanted = size if cut is None else size + 1
    waiting: list[Block] = []
    have = 0
    for block in blocks:
        waiting.append(block)
        have += len(block.time_us)
        while have >= wanted:
            taken, places = _next(waiting, shape, cut, counts)
            have -= taken
            head, waiting = _split(waiting, taken)
            yield head, places
    while have:
        taken, places = _next(waiting, shape, cut, counts)
        have -= taken
        head, waiting = _split(waiting, taken)
        yield head, places


def whole_query_places(
    query: NDArray[Any], shape: tuple[int, int], counts: Counter[str]
) -> tuple[int, NDArray[np.int64]]:
    """Fills batches with whole queries; a query longer than a batch is cut and counted.

    Args:
        query: Query of each waiting row, equal for the rows of a query.
        shape: Batches per chunk and places per batch, (K, B).
        counts: ``query_cut`` counts the queries that did not fit in a batch.

    Returns:
        Rows taken, n, and the place of each, int64[n].
    """
    ends = np.append(np.flatnonzero(query[1:] != query[:-1]) + 1, len(query))
    places = []
    at = 0
    for batch in range(shape[0]):
        if at == len(query):
            break
        last = np.searchsorted(ends, at + shape[1], side="right") - 1
        stop = int(ends[last]) if last >= 0 else 0
        if stop <= at:
            stop = min(at + shape[1], len(query))
            counts["query_cut"] += 1
        places.append(batch * shape[1] + np.arange(stop - at))
        at = stop
    return at, np.concatenate(places)


def _next(
    waiting: list[Block], shape: tuple[int, int], cut: Cut | None, counts: Counter[str]
) -> tuple[int, NDArray[np.int64] | None]:
    have = sum(len(block.time_us) for block in waiting)
    if cut is None:
        return min(have, shape[0] * shape[1]), None
    limit = shape[0] * shape[1] + 1
    query = np.concatenate([b.query for b in waiting if b.query is not None])[:limit]
    return cut(query, shape, counts)


def _split(blocks: list[Block], n: int) -> tuple[list[Block], list[Block]]:
    """Returns the first ``n`` rows and the rest."""
    head: list[Block] = []
    for place, block in enumerate(blocks):
        length = len(block.time_us)
        if n < length:
            rest = [block.cut(n, length), *blocks[place + 1 :]]
            return [*head, block.cut(0, n)] if n else head, rest
        head.append(block)
        n -= length
        if not n:
            return head, blocks[place + 1 :]
    return head, []
