"""The server that ``octr bench serving`` starts, and its changes of version."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import httpx
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from ctr.errors import ConfigError
from serving.load.server import bench_server
from serving.predictor import Predictor
from serving.warmup import made_up_rows, predict_request


def test_a_server_of_copies(version: Path, tmp_path: Path) -> None:
    rows = made_up_rows(Predictor.load(version).encoder, 2)
    body = json.dumps({"inputs": {name: column.tolist() for name, column in rows.items()}})
    request = predict_request(rows, model="bench")
    with bench_server(version, tmp_path) as server:
        assert server.memory_mb() > 100.0
        cpu = server.cpu_s()
        with grpc.insecure_channel(server.address) as channel:
            stub = PredictionServiceStub(channel)
            assert server.rpcs() == 0
            assert stub.Predict(request, 60).model_spec.version.value == 1
            request.inputs.clear()
            with pytest.raises(grpc.RpcError):
                stub.Predict(request, 60)
        assert server.rpcs() == 1
        server.change_to(2)
        answer = httpx.post(f"{server.url}:predict", content=body, timeout=60)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "2")
        assert server.cpu_s() > cpu
        server.process.kill()
        server.process.wait()
        with pytest.raises(ConfigError, match="ended"):
            server.change_to(3)
    assert not (version / "BLESSED").exists()


def test_a_server_that_does_not_start(version: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="octr serve ended"),
        bench_server(version, tmp_path, "--host", "0.0.0.0"),
    ):
        pass
