"""``octr serve`` as a client of TensorFlow Serving sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.predictor import Predictor
from serving.warmup import as_examples, made_up_rows

Rows = dict[str, list[Any]]


@pytest.fixture(scope="module")
def channel(shared_server: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(shared_server.grpc) as opened:
        yield opened


@pytest.fixture(scope="module")
def want(version: Path, request_rows: Rows) -> np.ndarray:
    return Predictor.load(version).predict(request_rows)


def predict_request(rows: Rows, folder: Path, **spec: Any) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = "shop"
    for key, value in spec.items():
        if key == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, key, value)
    types = json.loads((folder / "manifest.json").read_text())["signatures"]["serving_default"]
    for name, values in rows.items():
        dtype = tf.string if types["inputs"][name].startswith("string") else tf.float32
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values, dtype))
    return request


def test_rows_and_columns_over_rest(
    shared_server: Any, request_rows: Rows, want: np.ndarray
) -> None:
    url = f"{shared_server.rest}:predict"
    columns = httpx.post(url, json={"inputs": request_rows}).raise_for_status()
    assert columns.headers["x-model-version"] == "1"
    outputs = columns.json()["outputs"]
    assert set(outputs) == {"probabilities", "logits"}
    np.testing.assert_allclose(outputs["probabilities"], want, rtol=0, atol=1e-6)

    names = list(request_rows)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*request_rows.values(), strict=True)]
    answer = httpx.post(url, json={"signature_name": "serving_default", "instances": rows})
    predictions = answer.raise_for_status().json()["predictions"]
    found = [prediction["probabilities"] for prediction in predictions]
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
def test_versions_and_labels(shared_server: Any, request_rows: Rows, where: str) -> None:
    url = f"{shared_server.rest}{where}"
    assert httpx.post(f"{url}:predict", json={"inputs": request_rows}).status_code == 200
    status = httpx.get(url).raise_for_status().json()
    assert status == {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    metadata = httpx.get(f"{url}/metadata").raise_for_status().json()
    assert metadata["model_spec"] == {"name": "shop", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert set(signature["inputs"]) == set(request_rows)
    assert signature["inputs"]["bid"]["dtype"] == "DT_FLOAT"
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_missing_values_over_rest(shared_server: Any, request_rows: Rows, version: Path) -> None:
    predictor = Predictor.load(version)
    null = {name: [None] for name in request_rows}
    spelled = {
        name: [float("nan") if isinstance(values[0], float) else ""]
        for name, values in request_rows.items()
    }
    found = []
    for body in (null, spelled):
        content = json.dumps({"inputs": body})  # writes NaN, as Python clients do
        answer = httpx.post(f"{shared_server.rest}:predict", content=content).raise_for_status()
        found.append(answer.json()["outputs"]["probabilities"][0])
    assert found == pytest.approx([float(predictor.predict(null)[0])] * 2, abs=1e-6)


def test_examples_over_rest(shared_server: Any, version: Path) -> None:
    predictor = Predictor.load(version)
    rows = made_up_rows(predictor.encoder, 4)
    encoded = [{"b64": _b64(example)} for example in as_examples(rows)]
    found = httpx.post(
        f"{shared_server.rest}:predict", json={"signature_name": "predict", "instances": encoded}
    ).raise_for_status()
    probabilities = [row["probabilities"] for row in found.json()["predictions"]]
    assert probabilities == pytest.approx(predictor.predict(rows).tolist(), abs=1e-6)


def _b64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


def test_the_official_stubs_over_grpc(
    channel: grpc.Channel, request_rows: Rows, want: np.ndarray, version: Path
) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    for spec in ({}, {"version": 1}, {"version_label": "stable"}):
        response = stub.Predict(predict_request(request_rows, version, **spec), 60)
        assert response.model_spec.version.value == 1
        assert response.model_spec.signature_name == "serving_default"
        # Both ways that clients read tensors.
        found = tf.make_ndarray(response.outputs["probabilities"])
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)
        assert list(response.outputs["probabilities"].float_val) == found.tolist()
    request = predict_request(request_rows, version)
    request.output_filter.append("logits")
    assert list(stub.Predict(request, 60).outputs) == ["logits"]


def test_metadata_and_status_over_grpc(channel: grpc.Channel, request_rows: Rows) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "shop"
    signatures = SignatureDefMap()
    assert stub.GetModelMetadata(request, 60).metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["serving_default"].inputs) == set(request_rows)
    status = GetModelStatusRequest()
    status.model_spec.name = "shop"
    answer = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, 60)
    (one,) = answer.model_version_status
    assert (one.version, one.State.Name(one.state)) == (1, "AVAILABLE")


def huge(tensor: Any) -> None:
    """Announces 4e9 copies of one number."""
    tensor.Clear()
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.tensor_shape.dim.add().size = 4_000_000_000
    tensor.float_val.append(1.0)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda r: setattr(r.model_spec, "name", "other"), "NOT_FOUND", "no model 'other'"),
        (lambda r: setattr(r.model_spec, "name", "x" * 10**6), "NOT_FOUND", "no model 'xxx"),
        (lambda r: setattr(r.model_spec.version, "value", 9), "NOT_FOUND", "version 9"),
        (lambda r: setattr(r.model_spec, "version_label", "canary"), "NOT_FOUND", "canary"),
        (lambda r: setattr(r.model_spec, "signature_name", "x"), "INVALID_ARGUMENT", "'x'"),
        (lambda r: r.inputs.pop("bid"), "INVALID_ARGUMENT", "lacks the input 'bid'"),
        (lambda r: r.output_filter.append("clicks"), "INVALID_ARGUMENT", "no output 'clicks'"),
        (
            lambda r: r.inputs["bid"].CopyFrom(tf.make_tensor_proto(["1"])),
            "INVALID_ARGUMENT",
            "input 'bid': expected float32",
        ),
        (
            lambda r: r.inputs["bid"].CopyFrom(tf.make_tensor_proto([[1.0]])),
            "INVALID_ARGUMENT",
            "'bid': expected rank 1, received 2",
        ),
        (
            lambda r: r.inputs["bid"].CopyFrom(tf.make_tensor_proto([1.0])),
            "INVALID_ARGUMENT",
            "'bid' has 1 rows",
        ),
        (lambda r: huge(r.inputs["bid"]), "INVALID_ARGUMENT", "too large"),
    ],
)
def test_wrong_requests_over_grpc(
    channel: grpc.Channel, request_rows: Rows, version: Path, change: Any, code: str, words: str
) -> None:
    request = predict_request(request_rows, version)
    change(request)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request, 60)
    assert error.value.code().name == code
    assert words in error.value.details()


def test_other_methods_are_refused_in_words(channel: grpc.Channel, shared_server: Any) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as error:
        stub.Classify(ClassificationRequest(), 60)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    answer = httpx.post(f"{shared_server.rest}:classify", json={})
    assert answer.status_code == 501
    assert "use :predict" in answer.json()["error"]
    assert httpx.get(f"{shared_server.rest}:predict").status_code == 405
    assert httpx.get(f"{shared_server.url}/v1/models/other").status_code == 404


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bid": ["cheap"]}, "input 'bid', row 0: expected a number, received a string"),
        ({"bid": [True]}, "'bid', row 0: expected a number, received a boolean"),
        ({"user_id": [7]}, "'user_id', row 0: expected a string, received a number"),
        ({"user_id": ["a", "b"]}, "rows"),
        ({"user_id": "a"}, "'user_id': expected a list"),
        ({"user_id": [["a"]]}, "'user_id', row 0: expected a string, received a list"),
        ({"user_id": ["\ud800"]}, "'user_id', row 0: this is no Unicode"),
        ({"user_id": [{"b64": "!"}]}, "'user_id', row 0: this is no Base64"),
        ({"usr_id": ["a"]}, "no input 'usr_id': did you mean 'user_id'"),
    ],
)
def test_wrong_requests_over_rest_name_the_field(
    shared_server: Any, request_rows: Rows, change: dict[str, Any], words: str
) -> None:
    one = {name: values[:1] for name, values in request_rows.items()}
    content = json.dumps({"inputs": {**one, **change}})
    answer = httpx.post(f"{shared_server.rest}:predict", content=content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_health_and_metrics(shared_server: Any, request_rows: Rows) -> None:
    assert httpx.get(f"{shared_server.url}/healthz").status_code == 200
    assert httpx.get(f"{shared_server.url}/readyz").json() == {"ready": True}
    httpx.post(f"{shared_server.rest}:predict", json={"inputs": request_rows})
    text = httpx.get(f"{shared_server.url}/metrics").text
    assert 'octr_requests_total{code="200",interface="rest",method="predict"}' in text
    assert 'octr_model_version{label="stable"} 1.0' in text
    assert "octr_batch_rows_bucket" in text
    same = httpx.get(f"{shared_server.url}/monitoring/prometheus/metrics")
    assert same.status_code == 200
