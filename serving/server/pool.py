"""The versions a server holds: loads what is blessed, switches at once, drains what is old."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ctr.errors import ConfigError, CtrError
from serving.blessing import blessed_versions
from serving.server.metrics import ServerMetrics
from serving.server.model import ServedModel
from serving.server.options import NotFoundError, ServerOptions, UnavailableError
from serving.server.routes import Routes, read_routes

log = logging.getLogger(__name__)

LABELS = ("stable", "canary")
#: A version that could not be loaded is tried again after this long.
_RETRY_S = 60.0
#: Ended versions that a status still tells about.
_REMEMBERED = 32


@dataclass(frozen=True)
class Status:
    """State of a version, in TensorFlow Serving's words, and why, if it failed."""

    state: str
    error: str = ""


@dataclass(frozen=True)
class _Current:
    stable: ServedModel | None = None
    canary: ServedModel | None = None
    share: float = 0.0


class ModelPool:
    """Follows a folder of versions.

    Args:
        options: The folder and how often it is looked at.
        metrics: Where loads and versions are counted.
    """

    def __init__(self, options: ServerOptions, metrics: ServerMetrics) -> None:
        self._options = options
        self._metrics = metrics
        self._loaded: dict[int, ServedModel] = {}
        self._draining: dict[int, float] = {}
        self._failed: dict[int, float] = {}
        self._current = _Current()
        self._routes = Routes()
        self.statuses: dict[int, Status] = {}
        self._loader = ThreadPoolExecutor(1, "load")
        self._random = random.Random()

    @property
    def stable(self) -> ServedModel | None:
        """The stable version, if there is one."""
        return self._current.stable

    @property
    def ready(self) -> bool:
        """True if there is a stable version."""
        return self._current.stable is not None

    @contextmanager
    def use(self, version: int = 0, label: str = "") -> Iterator[ServedModel]:
        """Yields a version and keeps it from being unloaded meanwhile.

        Raises:
            NotFoundError: this version or label is not being served.
            UnavailableError: no version is.
        """
        model = self._find(version, label)
        model.in_flight += 1
        try:
            yield model
        finally:
            model.in_flight -= 1

    async def watch(self) -> None:
        """Follows the folder until cancelled."""
        while True:
            await asyncio.sleep(self._options.poll_s)
            try:
                await self.poll()
            except Exception:  # whatever a folder may hold, what is loaded goes on serving
                log.exception("looking at %s failed", self._options.models_dir)

    async def poll(self) -> None:
        """Looks at the folder once and brings the served versions in line with it."""
        loop = asyncio.get_running_loop()
        folder = self._options.models_dir
        found = await loop.run_in_executor(self._loader, blessed_versions, folder)
        paths = {int(path.name): path for path in found}
        try:
            self._routes = await loop.run_in_executor(self._loader, read_routes, folder)
        except ConfigError as error:
            log.warning("%s The routes stay as they were.", error)
        stable = await self._load_stable(paths)
        canary = None
        if self._routes.canary in paths:
            canary = await self._load(paths[self._routes.canary])
        # One assignment: no request ever sees a half of the change.
        self._current = _Current(
            stable or self._current.stable, canary, self._routes.share if canary else 0.0
        )
        if self._unload():
            # Not at the next chance that the collector sees: a model is most of this process.
            await loop.run_in_executor(self._loader, gc.collect)
        self._count()

    async def close(self) -> None:
        """Waits for running requests, at most ``drain_s``, and lets everything go."""
        end = time.monotonic() + self._options.drain_s
        while any(m.in_flight for m in self._loaded.values()) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self._current = _Current()
        self._loaded.clear()
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _find(self, version: int, label: str) -> ServedModel:
        now = self._current
        if version:
            if version not in self._loaded or version in self._draining:
                raise NotFoundError(f"version {version} is not being served.")
            return self._loaded[version]
        if label:
            by_label = {"stable": now.stable, "canary": now.canary}
            model = by_label.get(label)
            if model is None:
                raise NotFoundError(f"no version has the label {label!r}.")
            return model
        if now.canary is not None and self._random.random() < now.share:
            return now.canary
        if now.stable is None:
            raise UnavailableError("no blessed version is loaded yet.")
        return now.stable

    async def _load_stable(self, paths: dict[int, Path]) -> ServedModel | None:
        """Loads what should be stable; if that is impossible, the newest one that can be."""
        candidates = sorted(paths)
        while candidates:
            version = self._routes.stable_of(candidates)
            if not version:
                if self._routes.stable:
                    log.warning("the pinned version %d is not blessed", self._routes.stable)
                break
            model = await self._load(paths[version])
            if model is not None:
                return model
            if self._current.stable is not None or self._routes.stable:
                break
            candidates.remove(version)
        return None

    async def _load(self, path: Path) -> ServedModel | None:
        version = int(path.name)
        if version in self._loaded:
            self._draining.pop(version, None)
            return self._loaded[version]
        if time.monotonic() < self._failed.get(version, 0.0):
            return None
        self.statuses[version] = Status("LOADING")
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(
                self._loader, ServedModel, path, self._options.warm_up
            )
        except (CtrError, OSError) as error:
            self._failed[version] = time.monotonic() + _RETRY_S
            self.statuses[version] = Status("END", str(error))
            self._metrics.load_failures.inc()
            log.warning("version %d is not served: %s", version, error)
            return None
        self._loaded[version] = model
        self.statuses[version] = Status("AVAILABLE")
        self._metrics.load_seconds.set(model.load_s)
        log.info("version %d loaded in %.1f s", version, model.load_s)
        return model

    def _unload(self) -> bool:
        """Lets go of what is no longer served and has no request; True if there was any."""
        now = time.monotonic()
        loaded = len(self._loaded)
        for version, model in list(self._loaded.items()):
            if model is self._current.stable or model is self._current.canary:
                self._draining.pop(version, None)
                self.statuses[version] = Status("AVAILABLE")
                continue
            since = self._draining.setdefault(version, now)
            self.statuses[version] = Status("UNLOADING")
            if not model.in_flight or now - since > self._options.drain_s:
                del self._loaded[version], self._draining[version]
                self.statuses[version] = replace(self.statuses[version], state="END")
                log.info("version %d unloaded", version)
        for version in sorted(self.statuses)[:-_REMEMBERED]:
            if version not in self._loaded:
                del self.statuses[version]
                self._failed.pop(version, None)
        return len(self._loaded) < loaded

    def _count(self) -> None:
        self._metrics.loaded.set(len(self._loaded))
        for label in LABELS:
            model = getattr(self._current, label)
            self._metrics.version.labels(label).set(model.version if model else 0)
