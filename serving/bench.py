"""``octr bench serving``: what a request costs, and what a change of versions does to others.

The load comes from ``hey`` (a Debian package) over loopback. Wall times depend on what else the
machine does; the server's CPU time per request does so much less.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from ctr.errors import ConfigError
from ctr.option_types import non_negative_int, positive_int

HELP = "requests per second, latency and CPU time of octr serve; hot swap and churn under load"
#: A swap may raise the 99th percentile by this factor at most.
MAX_SWAP_RATIO = 2.0
#: Growth of resident memory over a churn of versions that is still called none, MB.
MAX_GROWTH_MB = 50.0
_BATCHES = (1, 32, 512)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's options."""
    parser.add_argument("models_dir", type=Path, metavar="MODELS", help="from octr export")
    parser.add_argument("--seconds", type=positive_int, default=10, help="per measurement")
    parser.add_argument("--clients", type=positive_int, default=4, help="connections (default: 4)")
    parser.add_argument("--swaps", type=non_negative_int, default=3, help="versions under load")
    parser.add_argument(
        "--churn", type=non_negative_int, default=0, metavar="N", help="versions to load in a row"
    )


def run(args: argparse.Namespace) -> int:
    """Measures, and prints JSON.

    Returns:
        0, or 1 if a request failed, a swap slowed requests beyond the bound, or memory grew.
    """
    from ctr.quiet import start_quietly

    start_quietly()
    from serving.versions import newest_version

    source = newest_version(args.models_dir)
    if source is None:
        raise ConfigError(f"{args.models_dir} holds no exported model. Make one with octr export.")
    if not shutil.which("hey"):
        raise ConfigError("the load generator is missing: apt-get install hey")
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(args, source, Path(folder))
        report: dict[str, Any] = {"engines": bench.engines(), "rest": bench.steady()}
        if args.swaps:
            report["swap"] = bench.swap(warm_up=True)
            report["swap_without_warm_up"] = bench.swap(warm_up=False)
        if args.churn:
            report["churn"] = bench.churn()
    print(json.dumps(report, indent=1))
    found = [report[key] for key in ("swap",) if key in report]
    failed = sum(part["failed"] for part in (*report["rest"], *found))
    slow = any(part["p99_ratio"] > MAX_SWAP_RATIO for part in found)
    grown = report.get("churn", {}).get("growth_mb", 0.0) > MAX_GROWTH_MB
    return 1 if failed or slow or grown else 0


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    url: str
    models: Path

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def serves(self, version: int) -> bool:
        with urlopen(self.url) as answer:
            found = json.load(answer)["model_version_status"]
        return any(s["version"] == str(version) and s["state"] == "AVAILABLE" for s in found)

    def wait_for(self, version: int) -> None:
        while not self.serves(version):
            time.sleep(0.1)


class _Bench:
    def __init__(self, args: argparse.Namespace, source: Path, folder: Path) -> None:
        from serving.predictor import Predictor
        from serving.warmup import made_up_rows

        self._args, self._source, self._folder = args, source, folder
        self._predictor = Predictor.load(source)
        for n in _BATCHES:
            rows = made_up_rows(self._predictor.encoder, n)
            body = json.dumps({"inputs": {name: v.tolist() for name, v in rows.items()}})
            (folder / f"{n}.json").write_text(body)

    def engines(self) -> list[dict[str, Any]]:
        """CPU time of a call inside one process, µs."""
        import pyarrow as pa

        from serving.lite import LITE, LitePredictor
        from serving.warmup import made_up_rows

        engines: dict[str, Callable[[pa.RecordBatch], Any]] = {
            "tensorflow": self._predictor.predict
        }
        encoder = self._predictor.encoder
        if (self._source / LITE).is_file():
            small = LitePredictor(self._source, encoder)
            engines["litert"] = small.predict
            engines["litert_alone"] = lambda batch: small.predict_encoded(*encoded)
        found = []
        for n in _BATCHES:
            rows = made_up_rows(self._predictor.encoder, n)
            columns = {k: v if v.ndim == 1 else v.tolist() for k, v in rows.items()}
            batch = pa.RecordBatch.from_pydict(columns)
            hashed = encoder.encode(batch)
            encoded = hashed.ids, hashed.numeric
            times: dict[str, list[float]] = {name: [] for name in engines}
            for _ in range(7):
                for name, predict in engines.items():
                    start = time.process_time()
                    for _ in range(20):
                        predict(batch)
                    times[name].append((time.process_time() - start) * 1e6 / 20)
            found.append({"rows": n, **{k: round(sorted(v)[3], 1) for k, v in times.items()}})
        return found

    def steady(self) -> list[dict[str, Any]]:
        """Requests of several sizes against one version."""
        found = []
        with self._server() as server:
            for n in _BATCHES:
                self._hey(server, n, 2)
                cpu = server.cpu_s()
                calls = self._hey(server, n, self._args.seconds)
                cpu = server.cpu_s() - cpu
                found.append({"rows": n, **_summary(calls), "cpu_ms": 1e3 * cpu / len(calls)})
        return found

    def swap(self, warm_up: bool) -> dict[str, Any]:
        """Changes the version while requests run, and compares these with those before."""
        options = [] if warm_up else ["--no-warm-up"]
        seconds = self._args.seconds
        with self._server(*options) as server:
            self._hey(server, 1, 2)
            load = self._start_hey(server, 1, seconds * (1 + self._args.swaps))
            begin = time.monotonic()
            windows = []
            for number in range(2, 2 + self._args.swaps):
                time.sleep(max(0.0, begin + seconds * (number - 1) - time.monotonic()))
                start = time.monotonic() - begin
                self._add(server.models, number)
                server.wait_for(number)
                windows.append((start, time.monotonic() - begin + 1.0))
            calls = _read(load)
        during = [c for c in calls if any(a <= c[2] <= b for a, b in windows)]
        before = [c for c in calls if not any(a - 0.5 <= c[2] <= b + 0.5 for a, b in windows)]
        steady, changed = _summary(before), _summary(during)
        for part in (steady, changed):
            del part["per_second"]  # their spans have holes
        # Set-up that was left out falls on the first requests of a version.
        slowest = max((c[0] for c in during), default=0.0)
        return {
            "steady": steady,
            "during": changed,
            "slowest_ms": 1e3 * slowest,
            "failed": steady["failed"] + changed["failed"],
            "p99_ratio": changed["p99_ms"] / steady["p99_ms"],
        }

    def churn(self) -> dict[str, Any]:
        """Loads version after version under a light load and watches memory."""
        memory = []
        with self._server() as server:
            for number in range(2, 2 + self._args.churn):
                self._add(server.models, number)
                server.wait_for(number)
                self._hey(server, 32, 1)
                memory.append(round(server.memory_mb()))
        # The first loads fill pools that are kept.
        settled = memory[len(memory) // 3 :]
        return {"memory_mb": memory, "growth_mb": settled[-1] - settled[0]}

    @contextmanager
    def _server(self, *options: str) -> Iterator[_Server]:
        models = Path(tempfile.mkdtemp(dir=self._folder)) / "bench"
        self._add(models, 1)
        log = models.with_name("log")
        command = [sys.executable, "-c", "from ctr.cli import main; raise SystemExit(main())"]
        command += ["serve", str(models), "--rest-port", "0", "--grpc-port", "0", *options]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stderr=stream)
            try:
                while "gRPC on port" not in log.read_text():
                    if process.poll() is not None:
                        raise ConfigError(f"octr serve ended: {log.read_text()}")
                    time.sleep(0.1)
                url = next(word for word in log.read_text().split() if word.startswith("http"))
                yield _Server(process, url, models)
            finally:
                process.terminate()
                process.wait()

    def _add(self, models: Path, number: int) -> None:
        from serving.blessing import write_verdict

        models.mkdir(exist_ok=True)
        partial = models / f".bench-{number}"
        shutil.copytree(self._source, partial, copy_function=os.link)
        for marker in ("BLESSED", "NOT_BLESSED"):
            (partial / marker).unlink(missing_ok=True)
        write_verdict(partial, True, {})
        partial.rename(models / str(number))

    def _start_hey(self, server: _Server, rows: int, seconds: int) -> subprocess.Popen[str]:
        command = ["hey", "-z", f"{seconds}s", "-c", str(self._args.clients), "-o", "csv",
                   "-t", "60", "-m", "POST", "-T", "application/json",
                   "-D", str(self._folder / f"{rows}.json"), f"{server.url}:predict"]  # fmt: skip
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def _hey(self, server: _Server, rows: int, seconds: int) -> list[tuple[float, int, float]]:
        return _read(self._start_hey(server, rows, seconds))


def _read(load: subprocess.Popen[str]) -> list[tuple[float, int, float]]:
    """Returns (seconds, status, start) of every request."""
    out, _ = load.communicate()
    lines = csv.DictReader(io.StringIO(out))
    return [
        (float(row["response-time"]), int(row["status-code"]), float(row["offset"]))
        for row in lines
    ]


def _summary(calls: list[tuple[float, int, float]]) -> dict[str, Any]:
    times = sorted(call[0] for call in calls)
    if not times:
        raise ConfigError("no request was answered in time: measure for longer with --seconds.")
    span = max(call[2] for call in calls) - min(call[2] for call in calls)
    return {
        "requests": len(times),
        "per_second": round(len(times) / span, 1) if span else 0.0,
        "p50_ms": 1e3 * times[len(times) // 2],
        "p99_ms": 1e3 * times[min(len(times) - 1, int(0.99 * len(times)))],
        "failed": sum(call[1] != 200 for call in calls),
    }
