"""Requests that schemathesis makes of the server's own description, right ones and wrong ones.

It runs as its own process: its pytest fixtures need another pytest, and its report counts what was
accepted.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

TOKEN = "a token of more than 16 characters"


def fuzz(where: str, folder: Path, *options: str) -> dict[str, Any]:
    """Runs schemathesis; no request may fail, hang or be answered other than described."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", where, "--no-color",
               "--generation-deterministic", "--request-timeout", "60", "--continue-on-failure",
               "--report", "json", "--report-json-path", str(report), *options]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["operations"]["tested"] == found["operations"]["selected"] > 0
    return found


def accepted(report: dict[str, Any], operation: str) -> int:
    return sum(phase["accepted"] for phase in report["valid_rates"][operation].values())


def operations(document: dict[str, Any], method: str) -> set[str]:
    return {f"{method} {path}" for path, of in document["paths"].items() if method.lower() in of}


def test_the_server_keeps_to_its_description(shared_server: Any, tmp_path: Path) -> None:
    report = fuzz(
        f"{shared_server.url}/openapi.json", tmp_path,
        "--phases", "examples,coverage,fuzzing", "--max-examples", "10",
        # Columns of different lengths fit the description, which cannot tell, and get a 400.
        "--exclude-checks", "positive_data_acceptance",
    )  # fmt: skip
    document = httpx.get(f"{shared_server.url}/openapi.json").json()
    described = operations(document, "GET") | operations(document, "POST")
    # schemathesis may leave out the path that it has the description from.
    assert set(report["valid_rates"]) >= described - {"GET /openapi.json"}
    assert report["test_cases"]["generated"] > 1000
    for where in ("", "/versions/{version}", "/labels/{label}"):
        assert accepted(report, f"POST /v1/models/shop{where}:predict") > 30
        assert accepted(report, f"GET /v1/models/shop{where}/metadata") > 0


def test_rows_that_fit_the_description_are_answered(shared_server: Any, tmp_path: Path) -> None:
    """Rows are described in full, so what fits has to be accepted."""
    document = httpx.get(f"{shared_server.url}/openapi.json").json()
    only = copy.deepcopy(document)
    path = "/v1/models/shop:predict"
    only["paths"] = {path: only["paths"][path]}
    media = only["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    media["schema"]["anyOf"] = [
        form
        for form in media["schema"]["anyOf"]
        if "instances" in form["properties"] and "predict" not in names(form)
    ]
    assert len(media["schema"]["anyOf"]) == 2
    (tmp_path / "rows.json").write_text(json.dumps(only))
    report = fuzz(
        str(tmp_path / "rows.json"), tmp_path, "--url", shared_server.url, "--mode", "positive",
        "--phases", "coverage,fuzzing", "--max-examples", "20",
    )  # fmt: skip
    assert accepted(report, f"POST {path}") > 20


def names(form: dict[str, Any]) -> list[str]:
    return form["properties"]["signature_name"]["enum"]


def test_no_described_path_ignores_the_token(serve: Any, models: Path, tmp_path: Path) -> None:
    with serve(models, token=TOKEN) as server:
        where = f"{server.url}/openapi.json"
        assert httpx.get(where).status_code == 401
        document = httpx.get(where, headers={"Authorization": f"Bearer {TOKEN}"}).json()
        report = fuzz(
            where, tmp_path, "--header", f"Authorization:Bearer {TOKEN}", "--include-method", "GET",
            "--checks", "ignored_auth,not_a_server_error", "--phases", "fuzzing",
            "--max-examples", "3",
        )  # fmt: skip
    assert set(report["valid_rates"]) == operations(document, "GET")


@pytest.mark.parametrize("path", ["/openapi.json", "/metrics", "/healthz", "/v1/models/shop"])
def test_another_method_is_told_the_right_one(shared_server: Any, path: str) -> None:
    answer = httpx.request("DELETE", f"{shared_server.url}{path}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert "GET" in answer.json()["error"]


def test_without_a_version_rows_are_not_described(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    with serve(tmp_path / "shop") as server:
        document = httpx.get(f"{server.url}/openapi.json").json()
    post = document["paths"]["/v1/models/shop:predict"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"] == {"type": "object"}
