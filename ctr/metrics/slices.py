"""Metrics by the value of a feature: who is over- and who is under-predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.metrics.grid import N_BINS, histogram_auc
from ctr.metrics.rows import ScoredRows
from ctr.metrics.sums import ratio_values

OTHER = "(other)"
MISSING = "(missing)"
#: Columns of a scalar table: the arguments of :func:`ratio_values`.
N_SCALARS = 6


class SliceValues:
    """Numbers the values of one feature in order of first appearance.

    The first ``max_values`` distinct values get a number each, later ones share ``max_values``
    and are reported as "(other)": memory stays bounded whatever the stream brings.
    """

    def __init__(self, max_values: int, names: tuple[str, ...] = ()) -> None:
        """Starts with ``names`` already numbered."""
        self.max_values = max_values
        self.codes = {name: code for code, name in enumerate(names)}
        self._values: Any = None
        self._table = np.zeros(0, dtype=np.int64)

    @property
    def names(self) -> tuple[str, ...]:
        """Values seen, by number."""
        return tuple(self.codes)

    def encode(self, column: Any) -> NDArray[np.int64]:
        """Returns int64[n], the number of each row's value.

        Args:
            column: n values as an Arrow array (dictionaries are used as they are), a NumPy array
                of strings or integers, or a pair (int codes[n], their values) where code -1
                means null. Passing the same values object again is fast.
        """
        codes, values = _dictionary(column)
        if values is not self._values:
            # One spare entry at the end stands for null, which codes address as -1.
            self._values, self._table = values, np.full(len(values) + 1, -1)
        numbers = self._table[codes]
        if len(numbers) and numbers.min() < 0:
            self._look_up(codes[numbers < 0], values)
            numbers = self._table[codes]
        return numbers

    def _look_up(self, codes: NDArray[np.int64], values: Any) -> None:
        present = np.flatnonzero(np.bincount(codes + 1)) - 1
        names = [_name(values, code) for code in present]
        if len(self.codes) < self.max_values and not all(name in self.codes for name in names):
            present, first = np.unique(codes, return_index=True)
            present = present[np.argsort(first)]
            names = [_name(values, code) for code in present]
        for code, name in zip(present, names, strict=True):
            if name not in self.codes and len(self.codes) < self.max_values:
                self.codes[name] = len(self.codes)
            self._table[code] = self.codes.get(name, self.max_values)


def _name(values: Any, code: np.integer) -> str:
    value = values[int(code)] if code >= 0 else None
    value = value.as_py() if isinstance(value, pa.Scalar) else value
    return MISSING if value is None else str(value)


def _dictionary(column: Any) -> tuple[NDArray[np.int64], Any]:
    """Returns int64 codes (-1 = null) and the sequence of values they stand for."""
    if isinstance(column, tuple):
        codes, values = column
        return np.asarray(codes).astype(np.int64, copy=False), values
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        column = pa.array(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    indices = column.indices.cast(pa.int64()).fill_null(-1)
    return indices.to_numpy(zero_copy_only=False), column.dictionary


def add_scalars(table: NDArray[np.float64], codes: NDArray[np.int64], rows: ScoredRows) -> None:
    """Adds rows to a scalar table float64[n_values, N_SCALARS], in order."""
    residual = rows.weight * (rows.label - rows.prob)
    columns = (
        np.ones(len(rows)),
        rows.weight,
        rows.weight * rows.label,
        rows.weight * rows.prob,
        rows.weight * rows.loss,
        residual * residual,
    )
    flat = table.reshape(-1)
    first = codes * N_SCALARS
    for number, column in enumerate(columns):
        np.add.at(flat, first + number, column)


def add_scores(scores: NDArray[np.float64], codes: NDArray[np.int64], rows: ScoredRows) -> None:
    """Adds rows to score histograms float64[n_values, 2, N_BINS] by value and label, in order."""
    np.add.at(scores.reshape(-1), (codes * 2 + rows.label) * N_BINS + rows.bin, rows.weight)


def slice_report(
    names: tuple[str, ...],
    table: NDArray[np.float64],
    scores: NDArray[np.float64] | None = None,
) -> dict[str, dict[str, Any]]:
    """Returns the metrics of every value with at least one example, "(other)" last."""
    report = {}
    labelled = [*enumerate(names), (len(table) - 1, OTHER)]
    for code, name in labelled:
        examples, weight, positive, prob, loss, variance = table[code].tolist()
        if not examples:
            continue
        values = ratio_values(int(examples), weight, positive, prob, loss, variance)
        if scores is not None:
            values["auc"] = histogram_auc(scores[code, 0], scores[code, 1])
        report[name] = values
    return report
