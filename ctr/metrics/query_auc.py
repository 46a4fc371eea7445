"""Per-query AUC (grouped AUC): is the clicked item ranked above the others of its query?

A query's rows may be spread over the whole stream (the user as the query), so the rows
themselves are kept, 17 bytes each plus 2 per slice feature. Past ``max_rows`` the older half is
*folded*: its queries are evaluated as they stand and only sums remain. A query that continues
after a fold counts as two; for page-like queries that is one page in a million, for user-like
ones it turns the metric into a mean over blocks of at least ``max_rows / 2`` rows.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctr.errors import ConfigError
from ctr.metrics.rows import ScoredRows

QueryWeight = Literal["impressions", "queries"]


def _row_type(n_slices: int) -> np.dtype:
    return np.dtype(
        [
            ("query", np.uint64),
            ("prob", np.float32),
            ("weight", np.float32),
            ("label", np.uint8),
            ("codes", np.uint16, (n_slices,)),
        ]
    )


class QueryAuc:
    """Accumulates rows and evaluates the AUC inside each query, exactly, ties counting half.

    Queries without both labels are left out. The mean over queries weighs each by its impressions
    (sum of example weights) or counts each once. Scores are compared as float32.
    """

    def __init__(
        self,
        by: QueryWeight = "impressions",
        slice_sizes: tuple[int, ...] = (),
        max_rows: int = 2_000_000,
    ) -> None:
        """Starts empty.

        Args:
            by: Weight of a query in the mean: ``impressions`` or ``queries`` (one each).
            slice_sizes: Number of values (codes) of each slice feature.
            max_rows: Rows kept; beyond, the older half is folded into sums.

        Raises:
            ConfigError: ``by`` is unknown, or ``max_rows`` is below 2.
        """
        if by not in ("impressions", "queries"):
            raise ConfigError(f"per-query AUC: by must be impressions or queries, received {by!r}.")
        if max_rows < 2:
            raise ConfigError(f"per-query AUC: max_rows must be at least 2, received {max_rows}.")
        self.by: QueryWeight = by
        self.slice_sizes = tuple(slice_sizes)
        self.max_rows = max_rows
        self.folded_rows = 0
        self._rows = np.zeros(1024, dtype=_row_type(len(slice_sizes)))
        self._n = 0
        self._window_start = 0
        self._window = np.zeros(2)
        self._total = np.zeros(2)
        self._slices = [np.zeros((size, 2)) for size in self.slice_sizes]

    def add(
        self, query: NDArray[np.uint64], rows: ScoredRows, codes: list[NDArray[np.int64]]
    ) -> None:
        """Adds rows.

        Args:
            query: uint64[n] (or int64[n]) query ids or their hashes.
            rows: The n rows, as from :func:`ctr.metrics.rows.score_rows`.
            codes: Per slice feature int64[n], the slice value of each row.
        """
        end = self._n + len(rows)
        if end > len(self._rows):
            grown = np.zeros(max(end, 2 * len(self._rows)), dtype=self._rows.dtype)
            grown[: self._n] = self._rows[: self._n]
            self._rows = grown
        new = self._rows[self._n : end]
        new["query"] = np.asarray(query).astype(np.uint64, copy=False)
        new["prob"], new["weight"], new["label"] = rows.prob, rows.weight, rows.label
        for number, column in enumerate(codes):
            new["codes"][:, number] = column
        self._n = end
        while self._n > self.max_rows:
            self._fold(self.max_rows // 2)

    def _fold(self, n: int) -> None:
        """Replaces the oldest ``n`` rows by their sums."""
        old = self._rows[:n]
        if self._window_start < n:
            self._window += _sums(old[self._window_start :], self.by)
        self._total += _sums(old, self.by)
        for table, sums in zip(self._slices, self._slice_sums(old), strict=True):
            table += sums
        self._rows[: self._n - n] = self._rows[n : self._n].copy()
        self._n -= n
        self._window_start = max(0, self._window_start - n)
        self.folded_rows += n

    def _slice_sums(self, rows: NDArray[np.void]) -> list[NDArray[np.float64]]:
        order = _by_query_and_prob(rows)
        return [
            _sums_by_code(rows, order, rows["codes"][:, number], size, self.by)
            for number, size in enumerate(self.slice_sizes)
        ]

    def window_sums(self) -> NDArray[np.float64]:
        """Returns float64[2], weighted AUC and weight, over the rows since the last close."""
        return self._window + _sums(self._rows[self._window_start : self._n], self.by)

    def close_window(self) -> NDArray[np.float64]:
        """Returns :meth:`window_sums` and starts the next window with the next row."""
        sums = self.window_sums()
        self._window_start, self._window = self._n, np.zeros(2)
        return sums

    def value(self) -> float | None:
        """Returns the mean AUC inside a query over all rows, None if no query has both labels."""
        return mean_or_none(self._total + _sums(self._rows[: self._n], self.by))

    def slice_values(self) -> list[list[float | None]]:
        """Returns :meth:`value` over the rows of each value (code), per slice feature."""
        kept = self._slice_sums(self._rows[: self._n])
        return [
            [mean_or_none(pair) for pair in table + sums]
            for table, sums in zip(self._slices, kept, strict=True)
        ]

    @staticmethod
    def merge(a: QueryAuc, b: QueryAuc) -> QueryAuc:
        """Returns the accumulator over both sets of rows, with ``a``'s options; no open window.

        Raises:
            ConfigError: the two weigh queries differently or have other slices.
        """
        if (a.by, a.slice_sizes) != (b.by, b.slice_sizes):
            raise ConfigError(
                f"per-query AUC: cannot merge by={a.by!r}, slices {a.slice_sizes} with "
                f"by={b.by!r}, slices {b.slice_sizes}."
            )
        merged = QueryAuc(a.by, a.slice_sizes, a.max_rows)
        merged._rows = np.concatenate([a._rows[: a._n], b._rows[: b._n]])
        merged._n = len(merged._rows)
        merged._total = a._total + b._total
        merged._slices = [x + y for x, y in zip(a._slices, b._slices, strict=True)]
        merged.folded_rows = a.folded_rows + b.folded_rows
        merged.close_window()
        while merged._n > merged.max_rows:
            merged._fold(merged.max_rows // 2)
        return merged

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns the accumulated rows and sums as plain arrays."""
        return {
            "rows": self._rows[: self._n].copy().view(np.uint8),
            "window_start": np.array(self._window_start, dtype=np.int64),
            "folded_rows": np.array(self.folded_rows, dtype=np.int64),
            "window": self._window.copy(),
            "total": self._total.copy(),
            "slices": np.concatenate([np.zeros((0, 2)), *self._slices]),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over what :meth:`state_dict` of an accumulator with the same options returned."""
        self._rows = np.ascontiguousarray(state["rows"]).view(self._rows.dtype).copy()
        self._n = len(self._rows)
        self._window_start = int(state["window_start"])
        self.folded_rows = int(state["folded_rows"])
        self._window, self._total = state["window"].copy(), state["total"].copy()
        ends = np.cumsum(self.slice_sizes)[:-1]
        self._slices = [part.copy() for part in np.split(state["slices"], ends)][
            : len(self.slice_sizes)
        ]


def query_sums(
    query: NDArray[np.uint64], rows: ScoredRows, group: NDArray[np.int64], n_groups: int
) -> NDArray[np.float64]:
    """Sums the AUC inside queries by group, e.g. by the time bucket a query belongs to.

    Args:
        query: uint64[n], query ids or their hashes.
        rows: The n rows.
        group: int64[n] in [0, n_groups), at most 65,536 groups; queries are cut by it.
        n_groups: Number of groups.

    Returns:
        float64[n_groups, 2], AUC weighted by impressions, and that weight.
    """
    table = np.zeros(len(rows), dtype=_row_type(0))
    table["query"], table["prob"] = query, rows.prob
    table["weight"], table["label"] = rows.weight, rows.label
    order = _by_query_and_prob(table)
    return _sums_by_code(table, order, group.astype(np.uint16), n_groups, "impressions")


def mean_or_none(sums: NDArray[np.float64]) -> float | None:
    """Returns sums[0] / sums[1], or None when there is no weight."""
    return float(sums[0] / sums[1]) if sums[1] > 0 else None


def _field(rows: NDArray[np.void], name: str) -> NDArray[Any]:
    """Returns a contiguous copy of one field, from which to gather is several times faster."""
    return np.ascontiguousarray(rows[name])


def _by_query_and_prob(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Returns int64[n], the order by query (in any order) and probability within it.

    One 64-bit key of 32 query bits and the probability's bits sorts an order of magnitude faster
    than two keys do; queries whose 32 bits collide are then sorted apart.
    """
    query, prob = _field(rows, "query"), _field(rows, "prob")
    mixed = (query * np.uint64(0x9E3779B97F4A7C15)) & np.uint64(0xFFFFFFFF00000000)
    # Non-negative floats order like their bits; adding zero turns -0.0 into 0.0.
    order = np.argsort(mixed | (prob + np.float32(0)).view(np.uint32))
    mixed, query = mixed[order], query[order]
    starts = np.flatnonzero(np.append(True, mixed[1:] != mixed[:-1])[: len(order)])
    split = np.append(False, query[1:] != query[:-1])[: len(order)]
    split[starts] = False
    if split.any():
        run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
        at = np.flatnonzero(np.isin(run, run[split]))
        inner = np.lexsort((prob[order[at]], query[at], run[at]))
        order[at] = order[at][inner]
    return order


def _sums(rows: NDArray[np.void], by: QueryWeight) -> NDArray[np.float64]:
    codes = np.zeros(len(rows), dtype=np.uint16)
    return _sums_by_code(rows, _by_query_and_prob(rows), codes, 1, by).reshape(2)


def _sums_by_code(
    rows: NDArray[np.void],
    order: NDArray[np.int64],
    codes: NDArray[np.uint16],
    n_codes: int,
    by: QueryWeight,
) -> NDArray[np.float64]:
    """Returns float64[n_codes, 2]: weighted AUC and weight of the queries inside each code."""
    if not len(rows):
        return np.zeros((n_codes, 2))
    codes = np.ascontiguousarray(codes)
    if n_codes > 1:  # a stable sort of small integers is a radix sort, cheap on top
        order = order[np.argsort(codes[order], kind="stable")]
    code, query, prob = codes[order], _field(rows, "query")[order], _field(rows, "prob")[order]
    weight = _field(rows, "weight")[order].astype(np.float64)
    positive = np.where(_field(rows, "label")[order] == 1, weight, 0.0)
    negative = weight - positive

    new_query = np.ones(len(order), dtype=bool)
    new_query[1:] = (query[1:] != query[:-1]) | (code[1:] != code[:-1])
    new_tie = new_query.copy()
    new_tie[1:] |= prob[1:] != prob[:-1]
    ties, queries = np.flatnonzero(new_tie), np.flatnonzero(new_query)
    first_tie = np.searchsorted(ties, queries)

    tie_positive, tie_negative = np.add.reduceat(positive, ties), np.add.reduceat(negative, ties)
    before = np.cumsum(tie_negative) - tie_negative
    n_ties = np.diff(np.append(first_tie, len(ties)))
    below = before - np.repeat(before[first_tie], n_ties) + 0.5 * tie_negative
    ordered = np.add.reduceat(tie_positive * below, first_tie)
    query_positive = np.add.reduceat(tie_positive, first_tie)
    query_negative = np.add.reduceat(tie_negative, first_tie)

    pairs = query_positive * query_negative
    mixed = pairs > 0
    auc = ordered[mixed] / pairs[mixed]
    share = np.ones(len(auc))
    if by == "impressions":
        share = (query_positive + query_negative)[mixed]
    group = code[queries][mixed]
    return np.stack(
        [np.bincount(group, x, minlength=n_codes) for x in (auc * share, share)], axis=1
    )
