"""What Prometheus reads from a server."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class ServerMetrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "octr"}
        by_request = ["interface", "method", "code"]
        self.requests = Counter("requests", "Requests", by_request, **own)
        self.seconds = Histogram(
            "request_seconds", "Duration of requests", ["interface"], buckets=_SECONDS, **own
        )
        self.batch_rows = Histogram("batch_rows", "Rows per call of a model", buckets=_ROWS, **own)
        self.queued_rows = Gauge("queued_rows", "Rows that wait", **own)
        self.body_bytes = Gauge("body_bytes", "Bytes of HTTP bodies held", **own)
        self.version = Gauge("model_version", "Version by label", ["label"], **own)
        self.loaded = Gauge("models_loaded", "Versions in memory", **own)
        self.load_seconds = Gauge("model_load_seconds", "Last load, with its warm-up", **own)
        self.load_failures = Counter("model_load_failures", "Versions refused on load", **own)

    def text(self) -> bytes:
        """Returns the exposition format."""
        return generate_latest(self.registry)
