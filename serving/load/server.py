"""A server in a process of its own, and versions for it: copies of an exported one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from ctr.errors import ConfigError

#: A version that is not served after this long never will be.
_PATIENCE_S = 600.0
_RPCS = re.compile(
    r'^octr_requests_total{code="OK",interface="grpc",method="predict"} (\S+)', re.MULTILINE
)


@dataclass(frozen=True)
class BenchServer:
    """A running ``octr serve``.

    Attributes:
        process: The process.
        url: Of the model, over REST.
        address: Of the gRPC port.
        models: The folder of versions.
        source: The version that all others are copies of.
    """

    process: subprocess.Popen[bytes]
    url: str
    address: str
    models: Path
    source: Path

    def cpu_s(self) -> float:
        """CPU time that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def rpcs(self) -> int:
        """Calls of ``Predict`` that were answered well."""
        with urlopen(self.url.partition("/v1/")[0] + "/metrics") as answer:
            found = _RPCS.search(answer.read().decode())
        return int(float(found[1])) if found else 0

    def change_to(self, number: int) -> None:
        """Adds a blessed version and waits until it is the one that is served.

        Raises:
            ConfigError: it never is.
        """
        add_version(self.source, self.models, number)
        end = time.monotonic() + _PATIENCE_S
        while True:
            if self.process.poll() is not None:
                raise ConfigError("octr serve ended.")
            if self._serves(number):
                return
            if time.monotonic() > end:
                raise ConfigError(f"version {number} is not served after {_PATIENCE_S:.0f} s.")
            time.sleep(0.1)

    def _serves(self, version: int) -> bool:
        with urlopen(self.url) as answer:
            found = json.load(answer)["model_version_status"]
        return any(s["version"] == str(version) and s["state"] == "AVAILABLE" for s in found)


@contextmanager
def bench_server(source: Path, folder: Path, *options: str) -> Iterator[BenchServer]:
    """Serves a copy of a version, number 1, on free ports.

    Args:
        source: The version.
        folder: For the copies; on the same file system they take no space.
        options: Further options of ``octr serve``.

    Raises:
        ConfigError: the server does not start.
    """
    models = Path(tempfile.mkdtemp(dir=folder)) / "bench"
    add_version(source, models, 1)
    log = models.with_name("log")
    command = [sys.executable, "-c", "from ctr.cli import main; raise SystemExit(main())"]
    command += ["serve", str(models), "--rest-port", "0", "--grpc-port", "0", *options]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream)
        try:
            while not (port := re.search(r"gRPC on port (\d+)", log.read_text())):
                if process.poll() is not None:
                    raise ConfigError(f"octr serve ended: {log.read_text()}")
                time.sleep(0.1)
            url = next(word for word in log.read_text().split() if word.startswith("http"))
            yield BenchServer(process, url, f"127.0.0.1:{port[1]}", models, source)
        finally:
            process.terminate()
            process.wait()


def add_version(source: Path, models: Path, number: int) -> None:
    """Adds a blessed copy of a version under another number; it appears at once."""
    from serving.blessing import write_verdict

    models.mkdir(exist_ok=True)
    partial = models / f".bench-{number}"
    try:
        shutil.copytree(source, partial, copy_function=os.link)
    except shutil.Error:  # another file system
        shutil.rmtree(partial)
        shutil.copytree(source, partial)
    for marker in ("BLESSED", "NOT_BLESSED"):
        (partial / marker).unlink(missing_ok=True)
    write_verdict(partial, True, {})
    partial.rename(models / str(number))
