"""Merges waiting requests into one call of the model.

Nothing waits for company: a request that finds a free thread is computed at once, and what
arrives meanwhile is merged. So batches grow with the load and cost an idle server no latency.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.server.metrics import ServerMetrics
from serving.server.model import MAX_CELLS, ServedModel
from serving.server.options import OverloadedError, RequestError, ServerOptions

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Item:
    inputs: Mapping[str, NDArray[Any]]
    rows: int
    width: int
    done: asyncio.Future[Arrays]


class Batcher:
    """Runs requests of any version and signature on a few threads.

    Args:
        options: Threads and bounds.
        metrics: Where batches and waiting rows are counted.
    """

    def __init__(self, options: ServerOptions, metrics: ServerMetrics) -> None:
        self._options = options
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(options.threads, "predict")
        self._free = options.threads
        self._queued_rows = 0
        self._waiting: dict[tuple[ServedModel, str], deque[_Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, model: ServedModel, signature: str, inputs: Mapping[str, NDArray[Any]]
    ) -> Arrays:
        """Computes a request, possibly together with others.

        Raises:
            RequestError: the inputs do not fit the signature.
            OverloadedError: too many rows wait already.
        """
        rows = model.signature(signature).rows(inputs)
        if rows > self._options.max_request_rows:
            raise RequestError(
                f"{rows:,} rows in one request, at most {self._options.max_request_rows:,}."
            )
        if self._queued_rows + rows > self._options.max_queued_rows:
            raise OverloadedError(f"{self._queued_rows:,} rows are waiting already. Try later.")
        width = max((v.shape[1] for v in inputs.values() if v.ndim == 2), default=1)
        item = _Item(inputs, rows, width, asyncio.get_running_loop().create_future())
        self._waiting.setdefault((model, signature), deque()).append(item)
        self._queue(rows)
        self._dispatch()
        return await item.done

    def close(self) -> None:
        """Gives the threads back; nothing may be waiting any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _queue(self, rows: int) -> None:
        self._queued_rows += rows
        self._metrics.queued_rows.set(self._queued_rows)

    def _dispatch(self) -> None:
        while self._free and self._waiting:
            key = next(iter(self._waiting))
            items = self._take(self._waiting[key])
            # Whoever has more waiting goes to the end of the line.
            rest = self._waiting.pop(key)
            if rest:
                self._waiting[key] = rest
            if items:
                self._free -= 1
                task = asyncio.create_task(self._compute(*key, items))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _take(self, waiting: deque[_Item]) -> list[_Item]:
        items: list[_Item] = []
        rows, width = 0, 1
        while waiting:
            item = waiting[0]
            rows, width = rows + item.rows, max(width, item.width)
            if items and (rows > self._options.max_batch_rows or rows * width > MAX_CELLS):
                break
            self._queue(-waiting.popleft().rows)
            # Nobody waits for the answer of a cancelled request.
            if item.done.cancelled():
                rows -= item.rows
            else:
                items.append(item)
        return items

    async def _compute(self, model: ServedModel, signature: str, items: list[_Item]) -> None:
        try:
            loop = asyncio.get_running_loop()
            outcomes = await loop.run_in_executor(self._threads, _run_all, model, signature, items)
        except Exception as error:
            outcomes = [error] * len(items)
        finally:
            self._free += 1
            self._metrics.batch_rows.observe(sum(item.rows for item in items))
            self._dispatch()
        for item, outcome in zip(items, outcomes, strict=True):
            if item.done.done():
                continue
            if isinstance(outcome, Exception):
                item.done.set_exception(outcome)
            else:
                item.done.set_result(outcome)


def _run_all(
    model: ServedModel, signature: str, items: Sequence[_Item]
) -> list[Arrays | Exception]:
    """Computes a batch; if a request spoils it, each on its own, so that only that one fails."""
    if len(items) == 1:
        return [_run_one(model, signature, items[0])]
    try:
        found = model.run(signature, _merged(items))
    except RequestError:
        return [_run_one(model, signature, item) for item in items]
    ends = np.cumsum([item.rows for item in items])[:-1]
    parts = {name: np.split(values, ends) for name, values in found.items()}
    return [{name: values[i] for name, values in parts.items()} for i in range(len(items))]


def _run_one(model: ServedModel, signature: str, item: _Item) -> Arrays | Exception:
    try:
        return model.run(signature, item.inputs)
    except RequestError as error:
        return error


def _merged(items: Sequence[_Item]) -> Arrays:
    return {name: _stacked([item.inputs[name] for item in items]) for name in items[0].inputs}


def _stacked(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if parts[0].ndim == 1:
        return np.concatenate(parts)
    width = max(part.shape[1] for part in parts)
    out = np.full((sum(len(part) for part in parts), width), b"", object)
    at = 0
    for part in parts:
        out[at : at + len(part), : part.shape[1]] = part
        at += len(part)
    return out
