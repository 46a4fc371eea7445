"""HTTP connections that cannot be held open or grown by a client that means no good.

uvicorn bounds neither the number of open connections, nor the time and size of a request's head;
bodies are the application's business.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: From a connection, or the first byte of a request, to the end of the request's head.
HEAD_S = 10.0
#: Request line and headers together.
HEAD_BYTES = 1 << 16


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds; ``limit_concurrency`` bounds the open connections."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection, or turns it away when there are too many."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            self._refuse("503 Service Unavailable", "too many connections")
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the timer, which would keep the connection in memory."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hands data on, unless the head grows beyond its bound."""
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse("431 Request Header Fields Too Large", "the request's head is too long")

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP in JSON, like everything else that is refused."""
        self._refuse("400 Bad Request", "this is no valid HTTP request")

    def on_message_begin(self) -> None:
        """Starts the clock of a request on a connection that was kept alive."""
        super().on_message_begin()
        self._in_head = True
        if self._timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        """Stops the clock: from here on the application watches it."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(
            HEAD_S, self._refuse, "408 Request Timeout", "the request's head came too slowly"
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: str, reason: str) -> None:
        self._refused = True
        self._stop_timer()
        if self.transport.is_closing():
            return
        body = f'{{"error": "{reason}"}}'
        self.transport.write(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        self.transport.close()
