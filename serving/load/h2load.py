"""Load by ``h2load``: REST over HTTP/1.1, gRPC over HTTP/2."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ctr.errors import ConfigError
from serving.load.calls import Call, Measured

#: A connection without an answer for so long is lost.
_PATIENCE = "60s"
_FAILED = re.compile(r"^requests: .* (\d+) failed,", re.MULTILINE)


def need_h2load() -> None:
    """Checks that the load generator is there.

    Raises:
        ConfigError: it is not.
    """
    if not shutil.which("h2load"):
        raise ConfigError("the load generator is missing: apt-get install nghttp2-client")


def rest_target(url: str, body: Path) -> tuple[str, ...]:
    """Returns h2load's arguments that post a JSON file to a URL."""
    return ("--h1", "-H", "content-type: application/json", "-d", str(body), url)


def rpc_target(address: str, method: str, framed: Path) -> tuple[str, ...]:
    """Returns h2load's arguments that call a gRPC method, as ``/package.Service/Method``.

    gRPC tells of errors in trailers, which h2load does not read: to it every call is answered well.
    """
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    return (*headers, "-d", str(framed), f"http://{address}{method}")


def framed(message: bytes) -> bytes:
    """Returns a message as gRPC sends it: not compressed, its length first."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class H2load:
    """Requests under way, from the moment this is made.

    Args:
        target: From ``rest_target`` or ``rpc_target``.
        clients: Connections, each with one request at a time.
        seconds: Ends after this time. What is under way then is not counted.
        requests: Or ends after so many requests.
        per_second: Requests per second of all connections together; as many as can be without.
    """

    def __init__(
        self,
        target: tuple[str, ...],
        clients: int,
        *,
        seconds: float | None = None,
        requests: int | None = None,
        per_second: float | None = None,
    ) -> None:
        end = ("-D", f"{round(1e3 * seconds)}ms") if seconds else ("-n", str(requests))
        rate = ("--rps", f"{per_second / clients:g}") if per_second else ()
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        self._process = subprocess.Popen(
            ["h2load", *end, *rate, "-c", str(clients), "-N", _PATIENCE,
             f"--log-file={self._log}", *target],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait(self) -> Measured:
        """Waits for the end and returns what became of the requests."""
        with self._folder:
            out, _ = self._process.communicate()
            return read(out, self._log.read_text() if self._log.exists() else "")


def read(out: str, log: str) -> Measured:
    """Reads what h2load prints and its log of (µs since 1970, status, µs) by request.

    Raises:
        ConfigError: it did not get as far as counting.
    """
    found = _FAILED.search(out)
    if found is None:
        raise ConfigError(f"h2load failed: {out.strip()[-500:]}")
    rows = [line.split("\t") for line in log.splitlines()]
    calls = [Call(int(start) / 1e6, int(took) / 1e6) for start, code, took in rows if code == "200"]
    return Measured(calls, int(found[1]))
