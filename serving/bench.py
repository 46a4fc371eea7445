"""``octr bench serving``: what a request costs, and what a change of versions does to others.

The load comes over loopback, from ``h2load`` (in Debian's package nghttp2-client).
Wall times depend on what else the machine does; the server's CPU time per request does so much
less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctr.errors import ConfigError
from ctr.option_types import non_negative_int, positive_int
from serving.load.calls import Measured, percentile_ms, summary
from serving.load.h2load import H2load, framed, need_h2load, rest_target, rpc_target
from serving.load.server import BenchServer, bench_server

HELP = "requests per second, latency and CPU time of octr serve; hot swap and churn under load"
#: A swap may raise the 99th percentile by this factor at most.
MAX_SWAP_RATIO = 2.0
#: Growth of resident memory over a churn of versions that is still called none, MB.
MAX_GROWTH_MB = 50.0
_PARTS = ("engines", "rest", "grpc", "swap", "churn")
_BATCHES = (1, 32, 512)
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
#: Lets a server settle, and tells how many requests a measurement needs.
_TRIAL_S = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's options."""
    add = parser.add_argument
    add("models_dir", type=Path, metavar="MODELS", help="from octr export")
    add("--only", action="append", choices=_PARTS, metavar="PART",
        help=f"{', '.join(_PARTS)}; repeatable (default: all but churn)")  # fmt: skip
    add("--seconds", type=positive_int, default=10, help="per measurement")
    add("--clients", type=positive_int, default=4, help="connections (default: 4)")
    add("--swaps", type=non_negative_int, default=3, help="versions under load")
    add("--churn", type=positive_int, default=30, metavar="N",
        help="versions to load one after the other (default: 30)")  # fmt: skip
    add("--churn-every-s", type=positive_int, default=60, metavar="S",
        help="seconds from one of these to the next (default: 60)")  # fmt: skip
    add("--churn-per-second", type=positive_int, default=20, metavar="R",
        help="requests per second meanwhile (default: 20)")  # fmt: skip


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
    parts = args.only or [part for part in _PARTS if part != "churn"]
    if parts != ["engines"]:
        need_h2load()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(args, source, Path(folder))
        if "engines" in parts:
            report["engines"] = bench.engines()
        if "rest" in parts or "grpc" in parts:
            report |= bench.steady([part for part in ("rest", "grpc") if part in parts])
        if "swap" in parts and args.swaps:
            report["swap"] = bench.swap(warm_up=True)
            report["swap_without_warm_up"] = bench.swap(warm_up=False)
        if "churn" in parts:
            report["churn"] = bench.churn()
    print(json.dumps(report, indent=1))
    return 0 if passes(report) else 1


def passes(report: dict[str, Any]) -> bool:
    """Tells whether no request failed, no swap was slow and memory did not grow."""
    steady = [*report.get("rest", ()), *report.get("grpc", ())]
    failed = sum(part["failed"] for part in steady)
    slow = grown = False
    if swap := report.get("swap"):
        failed += swap["failed"]
        slow = swap["p99_ratio"] > MAX_SWAP_RATIO
    if churn := report.get("churn"):
        failed += churn["load"]["failed"]
        grown = churn["growth_mb"] > MAX_GROWTH_MB
    return not (failed or slow or grown)


class _Bench:
    def __init__(self, args: argparse.Namespace, source: Path, folder: Path) -> None:
        from serving.predictor import Predictor
        from serving.warmup import made_up_rows, predict_request

        self._args, self._source, self._folder = args, source, folder
        self._predictor = Predictor.load(source)
        for n in _BATCHES:
            rows = made_up_rows(self._predictor.encoder, n)
            body = json.dumps({"inputs": {name: v.tolist() for name, v in rows.items()}})
            self._body(n).write_text(body)
            request = predict_request(rows, model="bench")
            self._message(n).write_bytes(framed(request.SerializeToString()))

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

    def steady(self, interfaces: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Requests of several sizes against one version, by interface."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in interfaces}
        with bench_server(self._source, self._folder) as server:
            for n in _BATCHES:
                for name in interfaces:
                    trial = self._load(server, name, n, seconds=_TRIAL_S)
                    # Of a given number of requests none can get lost unseen.
                    wanted = len(trial.calls) * self._args.seconds // _TRIAL_S
                    requests = max(self._args.clients, wanted)
                    cpu = server.cpu_s()
                    calls = self._load(server, name, n, requests=requests)
                    cpu = server.cpu_s() - cpu
                    part = {"rows": n, **summary(calls), "cpu_ms": round(1e3 * cpu / requests, 2)}
                    found[name].append(part)
        return found

    def swap(self, warm_up: bool) -> dict[str, Any]:
        """Changes the version while requests run, and compares these with those before."""
        options = [] if warm_up else ["--no-warm-up"]
        args = self._args
        with bench_server(self._source, self._folder, *options) as server:
            self._load(server, "rest", 1, seconds=_TRIAL_S)
            target = rest_target(f"{server.url}:predict", self._body(1))
            load = H2load(target, args.clients, seconds=args.seconds * (1 + args.swaps))
            begin = time.time()
            windows = []
            for number in range(2, 2 + args.swaps):
                time.sleep(max(0.0, begin + args.seconds * (number - 1) - time.time()))
                start = time.time()
                server.change_to(number)
                windows.append((start, time.time() + 1.0))
            found = load.wait()
        during = [c for c in found.calls if any(a <= c.start <= b for a, b in windows)]
        before = [
            c for c in found.calls if not any(a - 0.5 <= c.start <= b + 0.5 for a, b in windows)
        ]
        if not during or not before:
            raise ConfigError("too few requests were answered: measure for longer with --seconds.")
        steady_ms, during_ms = percentile_ms(before, 99), percentile_ms(during, 99)
        return {
            "requests": len(found.calls),
            "failed": found.failed,
            "p99_steady_ms": steady_ms,
            "p99_during_ms": during_ms,
            "p99_ratio": round(during_ms / steady_ms, 2),
            # Set-up that was left out falls on the first requests of a version.
            "slowest_ms": percentile_ms(during, 100),
            "seconds_to_serve": [round(b - a - 1.0, 1) for a, b in windows],
        }

    def churn(self) -> dict[str, Any]:
        """Loads version after version under a light load and watches memory."""
        from serving.load.churn import churn

        args = self._args
        with bench_server(self._source, self._folder) as server:
            return churn(
                server, self._body(32), args.churn, args.churn_every_s,
                args.churn_per_second,
            )  # fmt: skip

    def _load(
        self,
        server: BenchServer,
        interface: str,
        rows: int,
        *,
        seconds: float | None = None,
        requests: int | None = None,
    ) -> Measured:
        if interface == "rest":
            target = rest_target(f"{server.url}:predict", self._body(rows))
        else:
            target = rpc_target(server.address, _PREDICT, self._message(rows))
        before = server.rpcs()
        found = H2load(target, self._args.clients, seconds=seconds, requests=requests).wait()
        if interface == "grpc":
            # Those that were refused look like answers to h2load.
            refused = max(0, len(found.calls) - (server.rpcs() - before))
            found = Measured(found.calls, found.failed + refused)
        return found

    def _body(self, rows: int) -> Path:
        return self._folder / f"{rows}.json"

    def _message(self, rows: int) -> Path:
        return self._folder / f"{rows}.grpc"
