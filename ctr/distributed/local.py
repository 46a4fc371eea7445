"""A cluster of processes on this machine, with a supervisor that brings the dead back."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ctr.distributed.task import SERVER, WORKER, ClusterSpec, spec_from_environment
from ctr.errors import ConfigError

log = logging.getLogger(__name__)


class LocalCluster:
    """Workers and parameter servers on loopback; they end with this process.

    A worker that dies is started again at its address, as an orchestrator would do. A parameter
    server is not: its variables are lost, and only a checkpoint has them.

    Args:
        workers: Number of workers.
        servers: Number of parameter servers.

    Raises:
        ConfigError: there is none of a kind.
    """

    def __init__(self, workers: int, servers: int) -> None:
        if workers < 1 or servers < 1:
            raise ConfigError(
                f"a cluster needs a worker and a parameter server, received {workers} and "
                f"{servers}. Ask for --cluster 2x2, for example."
            )
        ports = _free_ports(workers + servers)
        hosts = [f"127.0.0.1:{port}" for port in ports]
        self.addresses: Mapping[str, Sequence[str]] = {
            WORKER: hosts[:workers],
            SERVER: hosts[workers:],
        }
        # Forked from a process that has imported TensorFlow and started nothing of it.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["ctr.distributed.child"])
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._processes: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> LocalCluster:
        for role, hosts in self.addresses.items():
            for index in range(len(hosts)):
                self._start(role, index)
        threading.Thread(target=self._supervise, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        with self._lock:
            for process in self._processes.values():
                process.kill()

    def pid(self, role: str, index: int) -> int:
        """Returns the process id of a task."""
        with self._lock:
            return self._processes[role, index].pid

    def _start(self, role: str, index: int) -> None:
        spec = ClusterSpec(dict(self.addresses), role, index)
        process = self._context.Process(target=_serve_child, args=(spec,), daemon=True)
        process.start()
        self._processes[role, index] = process

    def _supervise(self) -> None:
        while not self._closing.wait(0.2):
            with self._lock:
                for (role, index), process in list(self._processes.items()):
                    lost = role == WORKER and not process.is_alive()
                    if lost and not self._closing.is_set():
                        log.warning("worker %d is gone and is started again", index)
                        self._start(role, index)


@contextmanager
def open_cluster(where: str) -> Iterator[Mapping[str, Sequence[str]]]:
    """Yields the addresses of a cluster by role.

    Args:
        where: ``WxS`` starts W workers and S parameter servers here and ends them afterwards;
            ``env`` is the cluster of ``TF_CONFIG``.

    Raises:
        ConfigError: it is neither, or ``TF_CONFIG`` does not describe a cluster.
    """
    if where == "env":
        yield spec_from_environment().addresses
        return
    workers, cross, servers = where.partition("x")
    if not (cross and workers.isdecimal() and servers.isdecimal()):
        raise ConfigError(
            f"--cluster {where}: expected workers and servers such as 2x2, or env for the cluster "
            "of TF_CONFIG."
        )
    with LocalCluster(int(workers), int(servers)) as cluster:
        yield cluster.addresses
        # What lies on the cluster is let go while it is there to hear of it, or TensorFlow
        # complains about each function at length.
        gc.collect()


def _serve_child(spec: ClusterSpec) -> None:
    # Not above: this process needs no TensorFlow to look after those that do.
    from ctr.distributed.child import serve_child

    serve_child(spec)


def _free_ports(n: int) -> list[int]:
    """Returns ports that nothing listened on a moment ago."""
    held = [socket.socket() for _ in range(n)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
