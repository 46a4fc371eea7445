"""Starts a server and ends it in good order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import uvicorn

from ctr.errors import ConfigError
from serving.server.backend import Backend
from serving.server.connection import BoundedProtocol
from serving.server.metrics import ServerMetrics
from serving.server.options import ServerOptions
from serving.server.pool import ModelPool
from serving.server.rest import RestApp
from serving.server.rpc import Services

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        rest_port: Where it listens for HTTP.
        grpc_port: Where it listens for gRPC.
        pool: Its versions.
        metrics: Its counters.
    """

    rest_port: int
    grpc_port: int
    pool: ModelPool
    metrics: ServerMetrics


class _HttpServer(uvicorn.Server):
    """Leaves signals to us: gRPC and the models have to be ended as well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(options: ServerOptions) -> AsyncIterator[Running]:
    """Serves while the context lasts; on leaving it, running requests are answered first.

    Raises:
        ConfigError: a port cannot be used, or the TLS files cannot.
    """
    backend = Backend.start(options)
    pool = backend.pool
    _allow_connections(options.max_connections)
    http = _HttpServer(_http_config(options, RestApp(backend)))
    listener = _listener(options)
    # Whoever waits for the ports to open finds a model behind them.
    await pool.poll()
    rpc, grpc_port = await _start_rpc(options, Services(backend))
    http_task = asyncio.create_task(http.serve(sockets=[listener]))
    watching = asyncio.create_task(pool.watch())
    try:
        while not http.started:
            if http_task.done():
                http_task.result()
                raise ConfigError("the HTTP server did not start.")
            await asyncio.sleep(0.01)
        yield Running(listener.getsockname()[1], grpc_port, pool, backend.metrics)
    finally:
        watching.cancel()
        http.should_exit = True
        await asyncio.gather(rpc.stop(options.drain_s), http_task)
        await pool.close()
        backend.batcher.close()


async def serve_until_signal(options: ServerOptions) -> None:
    """Serves until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # Loaded models are cyclic garbage once they are dropped. What TensorFlow's import left behind
    # stays for good; without it a collection takes milliseconds, not hundreds of them.
    gc.collect()
    gc.freeze()
    # A version that is being loaded keeps Python busy; requests get their turn sooner this way.
    sys.setswitchinterval(0.0005)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with running(options) as server:
        kind = "https" if options.tls_cert else "http"
        log.info(
            "serving %s: %s://%s:%d/v1/models/%s and gRPC on port %d%s",
            options.models_dir, kind, options.host, server.rest_port, options.name,
            server.grpc_port, "" if server.pool.ready else "; no blessed version yet",
        )  # fmt: skip
        await ended.wait()
        log.info("stopping: running requests are answered first")


def _http_config(options: ServerOptions, app: RestApp) -> uvicorn.Config:
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
        log_level="error", server_header=False, limit_concurrency=options.max_connections,
        timeout_keep_alive=60, timeout_graceful_shutdown=int(options.drain_s) or 1,
        ssl_certfile=options.tls_cert, ssl_keyfile=options.tls_key, backlog=2048,
        proxy_headers=False,
    )  # fmt: skip
    try:
        config.load()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--tls-cert, --tls-key: {error}.") from None
    return config


async def _start_rpc(options: ServerOptions, services: Services) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(
        maximum_concurrent_rpcs=max(8, options.max_connections // 8),
        options=[
            ("grpc.max_receive_message_length", options.max_request_bytes),
            ("grpc.max_metadata_size", 1 << 14),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 60_000),
        ],
    )
    server.add_generic_rpc_handlers(tuple(services.handlers()))
    address = f"{options.host}:{options.grpc_port}"
    try:
        if options.tls_cert and options.tls_key:
            pair = (options.tls_key.read_bytes(), options.tls_cert.read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"gRPC cannot listen on {address}: {error}") from None
    await server.start()
    return server, port


def _listener(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets of this protocol only; with it, every
    # answer on a kept connection waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.rest_port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {options.host}:{options.rest_port}: {error.strerror}. Name another "
            "--rest-port, or 0 for a free one."
        ) from None
    return listener


def _allow_connections(n: int) -> None:
    """Raises the soft limit of open files: a refused connection needs one, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * n + 4096
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
