"""What a server is told, and the errors it tells its clients."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

from ctr.errors import ConfigError

#: Characters of an error that a client is told.
_MESSAGE_LENGTH = 1000


@dataclass(frozen=True)
class ServerOptions:
    """Settings of ``octr serve``.

    Attributes:
        models_dir: Folder of versions.
        name: Model name in requests.
        host: Address to listen on.
        rest_port: 0 takes a free one.
        grpc_port: 0 takes a free one.
        threads: Batches that are computed at the same time.
        max_batch_rows: Rows of requests that are merged into one call.
        max_request_rows: Rows of one request.
        max_queued_rows: Rows that may wait; further requests are turned away.
        max_request_bytes: Size of one request's body.
        max_connections: HTTP connections, and concurrent RPCs divided by 8.
        request_timeout_s: Longest a request may take, from its first byte.
        poll_s: How often the folder is looked at.
        drain_s: Longest that running requests are waited for.
        token: Bearer token that requests must carry; empty for none.
        tls_cert: PEM file; empty path for plain text.
        tls_key: PEM file of the certificate's key.
        warm_up: False skips the warm-up requests, to measure what they are good for.
    """

    models_dir: Path
    name: str
    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    threads: int = 2
    max_batch_rows: int = 1024
    max_request_rows: int = 10_000
    max_queued_rows: int = 50_000
    max_request_bytes: int = 4 << 20
    max_connections: int = 1024
    request_timeout_s: float = 30.0
    poll_s: float = 1.0
    drain_s: float = 30.0
    token: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    warm_up: bool = True

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both --tls-cert and --tls-key.")

    @property
    def on_loopback(self) -> bool:
        """True if only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes:
        code: gRPC's code.
        http: HTTP's status.
    """

    code = grpc.StatusCode.INVALID_ARGUMENT
    http = 400

    def __str__(self) -> str:
        # A name in it may be as long as a request, and gRPC clients bound what they read of errors.
        return super().__str__()[:_MESSAGE_LENGTH]


class NotFoundError(RequestError):
    """There is no such model, version, label or path."""

    code, http = grpc.StatusCode.NOT_FOUND, 404


class OverloadedError(RequestError):
    """More requests wait than the server is willing to hold."""

    code, http = grpc.StatusCode.RESOURCE_EXHAUSTED, 429


class TooLargeError(RequestError):
    """A body that is too long."""

    code, http = grpc.StatusCode.RESOURCE_EXHAUSTED, 413


class TooSlowError(RequestError):
    """A client that sends too slowly, or a queue that did."""

    code, http = grpc.StatusCode.DEADLINE_EXCEEDED, 408


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""

    code, http = grpc.StatusCode.UNAUTHENTICATED, 401


class UnavailableError(RequestError):
    """There is no version to answer with, yet or any longer."""

    code, http = grpc.StatusCode.UNAVAILABLE, 503


class UnsupportedError(RequestError):
    """A method of the interface that these models have no signature for."""

    code, http = grpc.StatusCode.UNIMPLEMENTED, 501
