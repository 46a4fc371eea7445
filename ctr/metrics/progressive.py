"""Progressive validation over event time: windows, lifetime, slices, per-query AUC.

Each prediction was made before its example was learned from, so these metrics need no holdout.
Time is cut into windows ``floor(event_time / window_us)``. Rows come in nearly time order; a row
that is late for the open window is still counted in the window it belongs to (except that
the per-query AUC of windows takes it with the open window's rows).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.errors import ConfigError, CtrError
from ctr.metrics.grid import N_BINS
from ctr.metrics.query_auc import QueryAuc, QueryWeight, mean_or_none
from ctr.metrics.rows import ScoredRows, score_rows
from ctr.metrics.slices import N_SCALARS, OTHER, SliceValues, add_scores, slice_report
from ctr.metrics.sums import MetricSums
from ctr.metrics.windows import (
    ClosedWindow,
    OpenWindow,
    merge_windows,
    pack_windows,
    unpack_windows,
)


class ProgressiveMetrics:
    """Metrics of one label over a stream.

    Memory is bounded: when more than ``max_windows`` windows have closed, neighbours are merged
    and the window length doubles. State saved and restored anywhere between two updates continues
    bit for bit, given the same later calls; for rows in time order even the cutting of the stream
    into calls makes no difference.
    """

    def __init__(
        self,
        slices: tuple[str, ...] = (),
        window_us: int = 3_600_000_000,
        max_slice_values: int = 50,
        query_auc: QueryWeight | None = "impressions",
        max_windows: int = 512,
        max_query_rows: int = 2_000_000,
    ) -> None:
        """Starts empty.

        Args:
            slices: Features to report by.
            window_us: Window length in microseconds of event time.
            max_slice_values: Distinct values reported per feature, at most 65,000; the ones that
                appear later are pooled as "(other)".
            query_auc: Weight of a query in the per-query AUC, or None to leave it out.
            max_windows: Closed windows kept apart, at least 2.
            max_query_rows: Rows kept for the per-query AUC; see :class:`QueryAuc`.

        Raises:
            ConfigError: an option is out of its range.
        """
        if window_us < 1 or max_windows < 2 or not 1 <= max_slice_values <= 65_000:
            raise ConfigError(
                "metrics: window_us must be at least 1, max_windows at least 2 and "
                f"max_slice_values in [1, 65000], received {window_us}, {max_windows} and "
                f"{max_slice_values}."
            )
        self.features = tuple(slices)
        self.window_us = window_us
        self.max_slice_values = max_slice_values
        self.max_windows = max_windows
        self._values = {name: SliceValues(max_slice_values) for name in self.features}
        self._sizes = (max_slice_values + 1,) * len(self.features)
        # Untouched pages of a zeroed array cost no memory, so there is no need to grow these.
        self._scores = [np.zeros((size, 2, N_BINS)) for size in self._sizes]
        self._closed: dict[int, ClosedWindow] = {}
        self._open: OpenWindow | None = None
        self._query = (
            QueryAuc(query_auc, self._sizes, max_query_rows) if query_auc is not None else None
        )

    def update(
        self,
        time_us: ArrayLike,
        prob: ArrayLike,
        label: ArrayLike,
        weight: ArrayLike | None = None,
        query: ArrayLike | None = None,
        slices: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds predictions with their labels.

        Args:
            time_us: int64[n], event time in microseconds since the epoch.
            prob: float[n], probability predicted before learning from the row.
            label: n values 0 or 1; -1 and NaN mean unknown, and the row is ignored.
            weight: float[n], or None for 1; rows of weight 0 (padding) are ignored.
            query: uint64[n] or int64[n], query ids or their hashes; without it the rows stay out
                of the per-query AUC.
            slices: Per slice feature its n values; see :meth:`SliceValues.encode`.

        Raises:
            CtrError: a value is out of its range, or the values of a slice feature are missing.
        """
        columns = slices or {}
        for name in self.features:
            if name not in columns:
                raise CtrError(
                    f"metrics: no values for the slice feature {name!r}, received "
                    f"{sorted(columns)}. Pass its column or drop it from the schema's slices."
                )
        rows = score_rows(prob, label, weight)
        time = np.asarray(time_us, dtype=np.int64)
        ids = None if query is None or self._query is None else np.asarray(query)
        codes = [self._values[name].encode(columns[name]) for name in self.features]
        if rows.kept is not None:
            time, codes = time[rows.kept], [column[rows.kept] for column in codes]
            ids = None if ids is None else ids[rows.kept]
        if not len(rows):
            return
        for scores, column in zip(self._scores, codes, strict=True):
            add_scores(scores, column, rows)
        for part in self._split(time):
            self._add(
                int(time[part][0]),
                rows.take(part),
                [column[part] for column in codes],
                None if ids is None else ids[part],
            )

    def _split(self, time: NDArray[np.int64]) -> list[Any]:
        """Returns the rows of each window, windows ascending."""
        index = time // self.window_us
        if index[0] == index[-1] and (index == index[0]).all():
            return [slice(0, len(time))]
        order = np.argsort(index, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(index[order])) + 1)

    def _add(
        self,
        time_us: int,
        rows: ScoredRows,
        codes: list[NDArray[np.int64]],
        ids: NDArray[Any] | None,
    ) -> None:
        if self._open is not None and time_us // self.window_us > self._open.index:
            self.close_window()
        index = time_us // self.window_us  # closing may have doubled the window length
        if self._open is None:
            self._open = OpenWindow.empty(index, self._sizes)
        if index == self._open.index:
            self._open.add(rows, codes)
        else:
            late = OpenWindow.empty(index, self._sizes)
            late.add(rows, codes)
            self._file(index, late.closed(np.zeros(2)))
        if ids is not None and self._query is not None:
            self._query.add(ids, rows, codes)

    def close_window(self) -> None:
        """Closes the open window; :meth:`update` does so itself when time passes."""
        if self._open is not None:
            query = np.zeros(2) if self._query is None else self._query.close_window()
            closing, self._open = self._open, None
            self._file(closing.index, closing.closed(query))

    def _file(self, index: int, window: ClosedWindow) -> None:
        there = self._closed.get(index)
        self._closed[index] = window if there is None else merge_windows([there, window])
        while len(self._closed) > self.max_windows:
            pairs: dict[int, list[ClosedWindow]] = {}
            for number in sorted(self._closed):
                pairs.setdefault(number // 2, []).append(self._closed[number])
            self._closed = {number: merge_windows(pair) for number, pair in pairs.items()}
            self.window_us *= 2
            if self._open is not None:
                self._open.index //= 2

    def _all_windows(self) -> dict[int, ClosedWindow]:
        """Returns closed windows and the open one as it stands, ascending."""
        found = dict(self._closed)
        if self._open is not None:
            query = np.zeros(2) if self._query is None else self._query.window_sums()
            window, index = self._open.closed(query), self._open.index
            found[index] = merge_windows([found[index], window]) if index in found else window
        return {index: found[index] for index in sorted(found)}

    @property
    def closed_windows(self) -> int:
        """Number of windows that time has passed."""
        return len(self._closed)

    def windows(self, since_us: int | None = None) -> list[dict[str, Any]]:
        """Returns the metrics of every window with an example, the open one included.

        Each is the dict of :meth:`MetricSums.values` with ``per_query_auc``, ``start`` and ``end``
        (ISO 8601, UTC), ``start_us`` and ``end_us`` (exclusive), and ``examples_total``, the
        examples up to its end.

        Args:
            since_us: Leaves out windows that start before, if given.
        """
        report, total = [], 0
        for index, window in self._all_windows().items():
            total += window.sums.examples
            if since_us is not None and index * self.window_us < since_us:
                continue
            report.append(
                {
                    **_span(index * self.window_us, (index + 1) * self.window_us),
                    **window.sums.dense().values(),
                    "per_query_auc": mean_or_none(window.query),
                    "examples_total": total,
                }
            )
        return report

    def totals(self) -> MetricSums:
        """Returns the sums over the whole stream so far; cheap enough for a progress line."""
        sums = MetricSums.empty()
        for index in sorted(self._closed):
            self._closed[index].sums.add_to(sums)
        return sums if self._open is None else MetricSums.merge(sums, self._open.sums)

    def lifetime(self) -> dict[str, Any]:
        """Returns the metrics over the whole stream so far.

        ``per_query_auc`` is over all rows, whatever the window; ``query_rows_folded`` tells how
        many of them were evaluated early to bound memory.
        """
        values = self.totals().values()
        values["per_query_auc"] = None if self._query is None else self._query.value()
        values["query_rows_folded"] = 0 if self._query is None else self._query.folded_rows
        return values

    def slices(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Returns the metrics over the whole stream by feature and value."""
        tables = self._tables(list(self._all_windows().values()))
        inside = None if self._query is None else self._query.slice_values()
        report = {}
        for number, name in enumerate(self.features):
            names = self._values[name].names
            values = slice_report(names, tables[number], self._scores[number])
            for code, value in [*enumerate(names), (self.max_slice_values, OTHER)]:
                if value in values:
                    values[value]["per_query_auc"] = (
                        None if inside is None else inside[number][code]
                    )
            report[name] = values
        return report

    def since(self, start_us: int) -> dict[str, Any]:
        """Returns :meth:`between` from ``start_us`` to the end of the stream."""
        last = max(self._all_windows(), default=0)
        return self.between(start_us, (last + 1) * self.window_us)

    def between(self, start_us: int, end_us: int) -> dict[str, Any]:
        """Returns the metrics over the windows that start in [start_us, end_us).

        The result has the values of :meth:`lifetime`, the span really covered (``start``,
        ``end``, ...; absent when no window is inside) and ``slices``: feature -> value -> metrics
        without the two AUCs. ``per_query_auc`` is the mean over windows, so a query that spans
        several windows counts once in each.
        """
        inside = {
            index: window
            for index, window in self._all_windows().items()
            if start_us <= index * self.window_us < end_us
        }
        sums = MetricSums.empty()
        for window in inside.values():
            window.sums.add_to(sums)
        query = np.sum([window.query for window in inside.values()] or [np.zeros(2)], axis=0)
        tables = self._tables(list(inside.values()))
        values: dict[str, Any] = {}
        if inside:
            values = _span(min(inside) * self.window_us, (max(inside) + 1) * self.window_us)
        return {
            **values,
            **sums.values(),
            "per_query_auc": mean_or_none(query),
            "slices": {
                name: slice_report(self._values[name].names, tables[number])
                for number, name in enumerate(self.features)
            },
        }

    def _tables(self, windows: list[ClosedWindow]) -> list[NDArray[np.float64]]:
        tables = [np.zeros((size, N_SCALARS)) for size in self._sizes]
        for window in windows:
            for table, part in zip(tables, window.slices, strict=True):
                table += part
        return tables

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns everything as a flat dict of plain arrays (no pickles), independent copies."""
        meta = {
            "slices": self.features,
            "window_us": self.window_us,
            "max_slice_values": self.max_slice_values,
            "query_auc": None if self._query is None else self._query.by,
            "max_windows": self.max_windows,
            "max_query_rows": 2 if self._query is None else self._query.max_rows,
            "values": [self._values[name].names for name in self.features],
        }
        text = json.dumps(meta).encode()
        state: dict[str, np.ndarray] = {"meta": np.frombuffer(text, dtype=np.uint8).copy()}
        for key, array in pack_windows(self._closed).items():
            state[f"closed.{key}"] = array
        if self._open is not None:
            packed = pack_windows({self._open.index: self._open.closed(np.zeros(2))})
            for key, array in packed.items():
                state[f"open.{key}"] = array
        for number, scores in enumerate(self._scores):
            used = scores[_used(self._values[self.features[number]])]
            cells = np.flatnonzero(used)
            state[f"scores.{number}.cell"] = cells
            state[f"scores.{number}.weight"] = used.reshape(-1)[cells]
        if self._query is not None:
            for key, array in self._query.state_dict().items():
                state[f"query.{key}"] = array
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> ProgressiveMetrics:
        """Returns the metrics that :meth:`state_dict` was taken from."""
        meta = json.loads(np.asarray(state["meta"]).tobytes())
        names = meta.pop("values")
        metrics = cls(**{**meta, "slices": tuple(meta["slices"])})
        for feature, values in zip(metrics.features, names, strict=True):
            metrics._values[feature] = SliceValues(metrics.max_slice_values, tuple(values))
        metrics._closed = unpack_windows(_part(state, "closed."), metrics._sizes)
        for index, window in unpack_windows(_part(state, "open."), metrics._sizes).items():
            metrics._open = OpenWindow(index, window.sums.dense(), window.slices)
        for number, scores in enumerate(metrics._scores):
            part = _part(state, f"scores.{number}.")
            used = _used(metrics._values[metrics.features[number]])
            flat = np.zeros((len(used), 2, N_BINS)).reshape(-1)
            flat[part["cell"]] = part["weight"]
            scores[used] = flat.reshape(-1, 2, N_BINS)
        if metrics._query is not None:
            metrics._query.load_state(_part(state, "query."))
        return metrics


def _used(values: SliceValues) -> list[int]:
    """Returns the numbers a feature's rows can have: its values so far, and "(other)"."""
    return [*range(len(values.names)), values.max_values]


def _part(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): np.asarray(v) for k, v in state.items() if k.startswith(prefix)}


def _span(start_us: int, end_us: int) -> dict[str, Any]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    start, end = (epoch + timedelta(microseconds=us) for us in (start_us, end_us))
    return {
        "start": start.isoformat(),
        "end": end.isoformat(),
        "start_us": start_us,
        "end_us": end_us,
    }
