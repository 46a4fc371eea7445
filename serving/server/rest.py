"""The HTTP interface: TensorFlow Serving's paths and JSON, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.server.backend import Backend
from serving.server.metadata import metadata_json, status_json, status_of
from serving.server.openapi import describe
from serving.server.options import (
    NotFoundError,
    OverloadedError,
    RequestError,
    TooLargeError,
    TooSlowError,
    UnsupportedError,
)
from serving.server.rest_json import format_response, parse_request

log = logging.getLogger(__name__)

_MODEL = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[0-9]{1,18})|/labels/(?P<label>[\w.-]{1,64}))?"
    r"(?P<method>:[a-z]+|/metadata)?"
)
_HEALTH = ("/healthz", "/readyz")
_METRICS = ("/metrics", "/monitoring/prometheus/metrics")
#: Bodies longer than this are parsed in a thread, so that other requests are not held up.
_LONG_BODY = 1 << 16
#: All bodies that are held at the same time, in units of the longest one allowed.
_HELD_BODIES = 16


class RestApp:
    """An ASGI application.

    Args:
        backend: What it answers from.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._options = backend.options
        self._pool = backend.pool
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; ends it if that takes longer than allowed."""
        if scope["type"] != "http":
            return
        start = time.perf_counter()
        request = Request(scope, receive)
        method, response = "other", Response(status_code=500)
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            # This covers clients that read their answer too slowly, too.
            async with asyncio.timeout(self._options.request_timeout_s):
                try:
                    method, response = await self._answer(request)
                except RequestError as error:
                    method, response = "error", _error(error)
                except (TimeoutError, ClientDisconnect):
                    raise
                except Exception as error:
                    response = _json_response(
                        {"error": f"internal error: {type(error).__name__}"}, 500
                    )
                    log.error("a request failed", exc_info=error)
                await response(scope, receive, send)
        self._backend.count("rest", method, str(response.status_code), start)

    async def _answer(self, request: Request) -> tuple[str, Response]:
        path, verb = request.url.path, request.method
        if path in _HEALTH:
            _need("GET", verb)
            if path == "/healthz":
                return "health", _json_response({"status": "alive"})
            ready = self._pool.ready
            return "health", _json_response({"ready": ready}, 200 if ready else 503)
        self._backend.authorize(request.headers.get("authorization", ""))
        if path in _METRICS:
            _need("GET", verb)
            return "metrics", Response(self._backend.metrics.text(), media_type=CONTENT_TYPE_LATEST)
        if path == "/openapi.json":
            _need("GET", verb)
            return "openapi", _json_response(describe(self._options, self._pool.stable))
        found = _MODEL.fullmatch(path)
        if found is None:
            raise NotFoundError("no such path. Models are under /v1/models/NAME.")
        version, label = int(found["version"] or 0), found["label"] or ""
        self._backend.check_model(found["name"], version if found["version"] else None)
        action = found["method"] or ""
        if action == ":predict":
            _need("POST", verb)
            return "predict", await self._predict(request, version, label)
        if action in (":classify", ":regress"):
            raise UnsupportedError(
                f"{action[1:]} needs a signature these models lack; use :predict."
            )
        if action not in ("", "/metadata"):
            raise NotFoundError(f"there is no {action}, but there is :predict.")
        _need("GET", verb)
        if action == "":
            return "status", _json_response(status_json(status_of(self._pool, version, label)))
        with self._pool.use(version, label) as model:
            return "metadata", _json_response(metadata_json(self._options.name, model))

    async def _predict(self, request: Request, version: int, label: str) -> Response:
        # The version is held for as long as the request lasts, so a swap cannot pull it away.
        with self._pool.use(version, label) as model:
            with contextlib.ExitStack() as held:
                body = await self._body(request, held)
                limit = self._options.max_request_rows
                if len(body) > _LONG_BODY:
                    parsed = await asyncio.to_thread(parse_request, body, model, limit)
                else:
                    parsed = parse_request(body, model, limit)
                signature, inputs, rows = parsed
                outputs = await self._backend.batcher.run(model, signature, inputs)
            content = format_response(outputs, rows)
            headers = {"x-model-version": str(model.version)}
            return Response(content, media_type="application/json", headers=headers)

    async def _body(self, request: Request, held: contextlib.ExitStack) -> bytes:
        """Reads a body of bounded size, and of bounded size together with all others."""
        limit = self._options.max_request_bytes
        too_large = TooLargeError(f"the body is larger than {limit:,} bytes.")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:18]) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._options.request_timeout_s / 2):
                async for part in request.stream():
                    if len(body) + len(part) > limit:
                        raise too_large
                    self._hold(len(part), held)
                    body += part
        except TimeoutError:
            raise TooSlowError("the body came too slowly.") from None
        return bytes(body)

    def _hold(self, size: int, held: contextlib.ExitStack) -> None:
        if self._held_bytes + size > _HELD_BODIES * self._options.max_request_bytes:
            raise OverloadedError("too many large bodies at the same time. Try later.")
        self._change(size)
        held.callback(self._change, -size)

    def _change(self, size: int) -> None:
        self._held_bytes += size
        self._backend.metrics.body_bytes.set(self._held_bytes)


class _MethodError(RequestError):
    http = 405

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this path is for {allowed} only.")
        self.allowed = allowed


def _need(allowed: str, verb: str) -> None:
    if verb != allowed:
        raise _MethodError(allowed)


def _error(error: RequestError) -> Response:
    # What was not read of the body would be taken for the next request.
    headers = {"connection": "close"} if error.http in (408, 413, 429) else {}
    if error.http in (429, 503):
        headers["retry-after"] = "1"
    if isinstance(error, _MethodError):
        headers["allow"] = error.allowed
    if error.http == 401:
        headers["www-authenticate"] = "Bearer"
    return _json_response({"error": str(error)}, error.http, headers)


def _json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(json.dumps(content), status, headers, "application/json")
