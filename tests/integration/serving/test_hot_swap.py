"""Versions come, go and go wrong while requests are answered."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctr.cli import main
from ctr.errors import ConfigError
from serving.server.options import ServerOptions
from serving.server.routes import Routes, read_routes, write_routes

Rows = dict[str, list[Any]]


def served(server: Any, rows: Rows, where: str = "") -> str:
    answer = httpx.post(f"{server.rest}{where}:predict", json={"inputs": rows})
    return answer.headers.get("x-model-version", str(answer.status_code))


def states(server: Any) -> dict[str, str]:
    found = httpx.get(server.rest).json()["model_version_status"]
    return {status["version"]: status["state"] for status in found}


def test_only_blessed_versions_are_served(
    serve: Any, models: Path, add: Callable[..., Path], request_rows: Rows
) -> None:
    with serve(models) as server:
        add(2, blessed=False)
        server.poll()
        assert served(server, request_rows) == "1"
        add(3)
        server.poll()
        assert served(server, request_rows) == "3"
        assert served(server, request_rows, "/versions/1") == "404"
        assert states(server) == {"1": "END", "3": "AVAILABLE"}


def test_no_request_fails_while_versions_change(
    serve: Any, models: Path, add: Callable[..., Path], request_rows: Rows
) -> None:
    with serve(models) as server:
        stop, seen = threading.Event(), Counter[str]()

        def client() -> None:
            with httpx.Client(timeout=120) as session:
                while not stop.is_set():
                    answer = session.post(f"{server.rest}:predict", json={"inputs": request_rows})
                    seen[answer.headers.get("x-model-version", str(answer.status_code))] += 1

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in (2, 3):
            add(number)
            server.poll()
            before = seen[str(number)]
            end = time.monotonic() + 60
            while seen[str(number)] == before and time.monotonic() < end:
                time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) <= {"1", "2", "3"}
        assert seen["1"]
        assert seen["3"]
        server.poll()
        assert states(server) == {"1": "END", "2": "END", "3": "AVAILABLE"}


def test_a_version_that_cannot_be_loaded_changes_nothing(
    serve: Any, models: Path, add: Callable[..., Path], request_rows: Rows
) -> None:
    with serve(models) as server:
        broken = add(2)
        (broken / "saved_model.pb").write_bytes(b"cut")
        server.poll()
        assert served(server, request_rows) == "1"
        status = httpx.get(f"{server.rest}/versions/2").json()["model_version_status"][0]
        assert (status["state"], status["status"]["error_code"]) == ("END", "ABORTED")
        assert "damaged" in status["status"]["error_message"]
    # A new process takes the newest that works.
    with serve(models) as server:
        assert served(server, request_rows) == "1"


def test_a_version_changed_after_its_blessing_is_not_taken(
    serve: Any, models: Path, add: Callable[..., Path], request_rows: Rows
) -> None:
    changed = add(2)
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps({**manifest, "examples": 1}))
    with serve(models) as server:
        assert served(server, request_rows) == "1"


def test_canary_promotion_and_rollback(
    serve: Any,
    models: Path,
    add: Callable[..., Path],
    request_rows: Rows,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def route(*options: str) -> dict[str, Any]:
        assert main(["route", str(models), *options]) == 0
        return json.loads(capsys.readouterr().out)

    with serve(models) as server:
        server.pool._random = random.Random(1)
        # On trial before it is there: so it never becomes stable by being the newest.
        add(2)
        assert route("--canary", "2", "--share", "0.5")["serving"] == 1
        server.poll()
        seen = Counter(served(server, request_rows) for _ in range(40))
        assert set(seen) == {"1", "2"}
        assert 10 <= seen["2"] <= 30
        assert served(server, request_rows, "/labels/canary") == "2"
        assert served(server, request_rows, "/labels/stable") == "1"
        route("--share", "0")
        server.poll()
        assert {served(server, request_rows) for _ in range(5)} == {"1"}
        assert route("--promote")["serving"] == 2
        server.poll()
        assert served(server, request_rows) == "2"
        assert served(server, request_rows, "/labels/canary") == "404"
        assert route("--rollback")["serving"] == 1
        server.poll()
        assert served(server, request_rows) == "1"
        # A rollback lasts, whatever is blessed later, until it is ended.
        add(3)
        server.poll()
        assert served(server, request_rows) == "1"
        assert route("--follow")["serving"] == 3
        server.poll()
        assert served(server, request_rows) == "3"


def test_routes_that_cannot_be(
    models: Path, add: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    add(2, blessed=False)
    for options, message in (
        (["--stable", "2"], "2 is not blessed. Blessed: 1."),
        (["--canary", "7"], "7 is not blessed"),
        (["--canary", "1", "--share", "1.5"], "share must be in"),
        (["--share", "0.1"], "goes with --canary"),
        (["--promote"], "no canary"),
        (["--rollback"], "no blessed version before 1"),
    ):
        assert main(["route", str(models), *options]) == 2
        assert message in capsys.readouterr().err
    assert read_routes(models) == Routes()
    (models / "routes.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        read_routes(models)


def test_damaged_routes_leave_things_as_they_were(
    serve: Any, models: Path, add: Callable[..., Path], request_rows: Rows
) -> None:
    add(2)
    write_routes(models, Routes(stable=1))
    with serve(models) as server:
        (models / "routes.json").write_text("[]")
        server.poll()
        assert served(server, request_rows) == "1"


def test_an_empty_folder_answers_503_until_there_is_a_version(
    serve: Any, version: Path, tmp_path: Path, request_rows: Rows
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    with serve(folder) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert served(server, request_rows) == "503"


def test_a_request_in_flight_is_answered_before_the_end(
    serve: Any, models: Path, request_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.server.model import ServedModel

    entered, go_on = threading.Event(), threading.Event()
    honest = ServedModel.run

    def slow(self: ServedModel, *args: Any) -> Any:
        entered.set()
        assert go_on.wait(60)
        return honest(self, *args)

    with serve(models) as server:
        monkeypatch.setattr(ServedModel, "run", slow)
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(served(server, request_rows)))
        thread.start()
        assert entered.wait(60)
        server.end()
        time.sleep(0.3)
        assert not server.ended.is_set()
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/healthz")
        go_on.set()
        thread.join(60)
        assert found == ["1"]
        assert server.ended.wait(60)


@contextmanager
def process(models: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Runs ``octr serve`` on free ports and yields it with its URL."""
    command = [sys.executable, "-c", "from ctr.cli import main; raise SystemExit(main())"]
    command += ["serve", str(models), "--rest-port", "0", "--grpc-port", "0", "--poll-s", "0.2"]
    log = models.with_name("serve.log")
    with log.open("w") as stream:
        child = subprocess.Popen([*command, *options], stderr=stream)
        try:
            end = time.monotonic() + 300
            while "gRPC on port" not in log.read_text():
                assert child.poll() is None, log.read_text()
                assert time.monotonic() < end
                time.sleep(0.2)
            url = next(part for part in log.read_text().split() if part.startswith("http"))
            yield child, url
        finally:
            child.kill()
            child.wait()


def test_kill_9_and_restart_serve_the_last_blessed_version(
    models: Path, add: Callable[..., Path], request_rows: Rows
) -> None:
    body = {"inputs": request_rows}
    with process(models) as (child, url):
        assert httpx.post(f"{url}:predict", json=body, timeout=60).status_code == 200
        add(2)
        add(3, blessed=False)
        end = time.monotonic() + 60
        while httpx.post(f"{url}:predict", json=body).headers["x-model-version"] != "2":
            assert time.monotonic() < end
            time.sleep(0.1)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
    with process(models) as (child, url):
        answer = httpx.post(f"{url}:predict", json=body, timeout=60)
        assert answer.headers["x-model-version"] == "2"
        child.terminate()
        assert child.wait(60) == 0


def test_only_this_machine_unless_said_otherwise(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ServerOptions(models, "shop").on_loopback
    assert ServerOptions(models, "shop", "::1").on_loopback
    assert not ServerOptions(models, "shop", "0.0.0.0").on_loopback
    assert main(["serve", str(models), "--host", "0.0.0.0"]) == 2
    assert "reachable from elsewhere" in capsys.readouterr().err
    (tmp_path / "token").write_text("short")
    assert main(["serve", str(models), "--token-file", str(tmp_path / "token")]) == 2
    assert "at least 16 characters" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "nowhere")]) == 2
    assert main(["serve", str(models), "--tls-cert", "a.pem"]) == 2
    assert "both" in capsys.readouterr().err
