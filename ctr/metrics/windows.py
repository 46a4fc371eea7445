"""Sums by event-time window: one open window, and the closed ones in compact form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctr.metrics.rows import ScoredRows
from ctr.metrics.slices import N_SCALARS, add_scalars
from ctr.metrics.sums import MetricSums, SparseSums


@dataclass
class OpenWindow:
    """The window that the newest rows fall into.

    Attributes:
        index: Event time // window length.
        sums: Sums over its rows.
        slices: Per slice feature float64[n_values, N_SCALARS].
    """

    index: int
    sums: MetricSums
    slices: list[NDArray[np.float64]]

    @classmethod
    def empty(cls, index: int, slice_sizes: Iterable[int]) -> OpenWindow:
        """Returns a window without rows."""
        tables = [np.zeros((size, N_SCALARS)) for size in slice_sizes]
        return cls(index, MetricSums.empty(), tables)

    def add(self, rows: ScoredRows, codes: list[NDArray[np.int64]]) -> None:
        """Adds rows with their slice values."""
        self.sums.add_rows(rows)
        for table, column in zip(self.slices, codes, strict=True):
            add_scalars(table, column, rows)

    def closed(self, query: NDArray[np.float64]) -> ClosedWindow:
        """Returns a compact copy; ``query`` is float64[2] from the per-query AUC."""
        tables = [table.copy() for table in self.slices]
        return ClosedWindow(self.sums.sparse(), tables, query)


@dataclass(frozen=True)
class ClosedWindow:
    """A window that time has passed.

    Attributes:
        sums: Sums over its rows.
        slices: Per slice feature float64[n_values, N_SCALARS].
        query: float64[2], weighted per-query AUC and its weight.
    """

    sums: SparseSums
    slices: list[NDArray[np.float64]]
    query: NDArray[np.float64]


def merge_windows(windows: list[ClosedWindow]) -> ClosedWindow:
    """Returns one window over the rows of all; queries count once per window they occur in."""
    if len(windows) == 1:
        return windows[0]
    sums = MetricSums.empty()
    for window in windows:
        window.sums.add_to(sums)
    tables = [np.sum(parts, axis=0) for parts in zip(*[w.slices for w in windows], strict=True)]
    query = np.sum([w.query for w in windows], axis=0)
    return ClosedWindow(sums.sparse(), tables, query)


def pack_windows(closed: dict[int, ClosedWindow]) -> dict[str, np.ndarray]:
    """Returns the closed windows as a few flat arrays."""
    windows = list(closed.values())
    lengths = [len(w.sums.bins) for w in windows]
    return {
        "index": np.array(list(closed), dtype=np.int64),
        "examples": np.array([w.sums.examples for w in windows], dtype=np.int64),
        "totals": np.array([[w.sums.loss, w.sums.variance, *w.query] for w in windows]).reshape(
            -1, 4
        ),
        "lengths": np.array(lengths, dtype=np.int64),
        "bins": np.concatenate([np.zeros(0, np.uint16), *[w.sums.bins for w in windows]]),
        "cells": np.concatenate([np.zeros((4, 0)), *[w.sums.cells for w in windows]], axis=1),
        "slices": np.concatenate(
            [np.zeros((0, N_SCALARS)), *[table for w in windows for table in w.slices]]
        ),
    }


def unpack_windows(
    state: dict[str, np.ndarray], slice_sizes: tuple[int, ...]
) -> dict[int, ClosedWindow]:
    """Returns what :func:`pack_windows` packed."""
    if not len(state.get("index", ())):
        return {}
    n = len(state["index"])
    ends = np.cumsum(state["lengths"])[:-1]
    bins, cells = np.split(state["bins"], ends), np.split(state["cells"], ends, axis=1)
    table_ends = np.cumsum(slice_sizes * n)[:-1].astype(np.int64)
    tables = [part.copy() for part in np.split(state["slices"], table_ends)]
    width = len(slice_sizes)
    closed = {}
    for at, index in enumerate(state["index"].tolist()):
        loss, variance, *query = state["totals"][at].tolist()
        examples = int(state["examples"][at])
        sums = SparseSums(examples, loss, variance, bins[at].copy(), cells[at].copy())
        closed[index] = ClosedWindow(
            sums, tables[at * width : (at + 1) * width], np.array(query, dtype=np.float64)
        )
    return closed
