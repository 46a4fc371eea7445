"""The end of the demo: a version is judged, served and asked, over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow as pa

from ctr.errors import ExportError
from serving.gating.gate import gate
from serving.gating.thresholds import Thresholds
from serving.predictor import Predictor
from serving.server.options import ServerOptions
from serving.server.run import running


def judge(models: Path, data: Path) -> None:
    """Blesses the newest version and prints what decided.

    Raises:
        ExportError: the gate refuses it.
    """
    verdict = gate(models, data, Thresholds())
    if not verdict.passed:
        raise ExportError(
            f"the gate refuses {verdict.version}: {'; '.join(verdict.reasons)}. A demo of few "
            "impressions makes no model to trust; use more."
        )
    for check in verdict.checks:
        if check.name in ("min_auc", "max_recent_calibration_error", "max_score_difference"):
            print(f"  {check}")
    print(f"  BLESSED: {len(verdict.checks)} checks passed")


def serve_and_ask(models: Path, name: str, row: pa.RecordBatch, expected: float) -> None:
    """Serves the blessed version for one request, of one row, and prints both.

    Raises:
        ExportError: the answer is not what the learner predicts.
    """
    encoder = Predictor.load(models).encoder
    body = {"inputs": {column: _json_ready(v) for column, v in encoder.raw_columns(row).items()}}
    options = ServerOptions(models, name, rest_port=0, grpc_port=0)
    url, answer = asyncio.run(_ask(options, json.dumps(body).encode()))
    served = answer["outputs"]["probabilities"][0]
    shown = {column: body["inputs"][column] for column in list(body["inputs"])[:3]}
    print(f"\nPOST {url}:predict")
    print(f"  {json.dumps({'inputs': shown})[:-2]}, ...}}}}")
    print(f"  the server says {served:.6f}, the learner {expected:.6f}")
    if not abs(served - expected) <= 1e-6:
        raise ExportError(f"{models}: the server predicts {served}, the learner {expected}.")


async def _ask(options: ServerOptions, body: bytes) -> tuple[str, dict[str, Any]]:
    async with running(options) as server:
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/{options.name}"
        answer = await asyncio.to_thread(_post, f"{url}:predict", body)
    return url, json.loads(answer)


def _post(url: str, body: bytes) -> bytes:
    request = Request(url, body, {"content-type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return answer.read()


def _json_ready(values: Any) -> list[Any]:
    return [
        None if isinstance(value, float) and math.isnan(value) else value
        for value in values.tolist()
    ]
