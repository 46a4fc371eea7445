"""What both interfaces answer from: versions, what computes, who may ask, and the counters."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass

from serving.server.batcher import Batcher
from serving.server.metrics import ServerMetrics
from serving.server.options import NotFoundError, ServerOptions, UnauthorizedError
from serving.server.pool import ModelPool


@dataclass(frozen=True)
class Backend:
    """Shared by REST and gRPC.

    Attributes:
        options: Name, token and bounds.
        pool: The versions.
        batcher: What computes.
        metrics: Where requests are counted.
    """

    options: ServerOptions
    pool: ModelPool
    batcher: Batcher
    metrics: ServerMetrics

    @classmethod
    def start(cls, options: ServerOptions) -> Backend:
        """Makes all of it; no version is loaded yet."""
        metrics = ServerMetrics()
        return cls(options, ModelPool(options, metrics), Batcher(options, metrics), metrics)

    def authorize(self, header: str) -> None:
        """Checks the value of an ``authorization`` header.

        Raises:
            UnauthorizedError: it does not carry the token.
        """
        if not self.options.token:
            return
        kind, _, given = header.partition(" ")
        token = self.options.token.encode()
        if kind.lower() != "bearer" or not hmac.compare_digest(given.encode(), token):
            raise UnauthorizedError("a bearer token is needed.")

    def check_model(self, name: str, version: int | None) -> None:
        """Checks the model's name, and that a version that is given can be one.

        Raises:
            NotFoundError: it is another name, or there is no such number.
        """
        if name != self.options.name:
            raise NotFoundError(f"no model {name!r} is served, but {self.options.name!r} is.")
        if version is not None and version < 1:
            raise NotFoundError(f"version {version} is not being served.")

    def count(self, interface: str, method: str, code: str, start: float) -> None:
        """Counts a request that began at ``start`` of ``time.perf_counter``."""
        self.metrics.requests.labels(interface, method, code).inc()
        self.metrics.seconds.labels(interface).observe(time.perf_counter() - start)
