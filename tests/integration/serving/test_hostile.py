"""Requests that mean no good: a clear refusal, bounded memory, and the server goes on."""

from __future__ import annotations

import json
import random
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.server import connection

Rows = dict[str, list[Any]]
#: What no tf.Example begins with.
BAD = b"\x00\x00\x00"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(autouse=True)
def still_serving(shared_server: Any, request_rows: Rows) -> Iterator[None]:
    """Whatever a test did, the next request is answered, and no memory was taken for good."""
    before = rss_mb()
    yield
    answer = httpx.post(f"{shared_server.rest}:predict", json={"inputs": request_rows}, timeout=60)
    assert answer.status_code == 200
    assert shared_server.metrics.body_bytes._value.get() == 0
    assert shared_server.metrics.queued_rows._value.get() == 0
    assert rss_mb() - before < 300


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def post(server: Any, content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.rest}:predict", content=content, headers=headers, timeout=60)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"1e999", b"\xff\xfe", b"\x00" * 100, b'{"inputs": 1}',
        b"[" * 100_000, b'{"a":' * 50_000, b'{"instances": []}', b'{"instances": [[]]}',
        b'{"instances": [null]}', b'{"instances": [{}]}', b'{"inputs": {}, "instances": []}',
        b'{"signature_name": 5, "inputs": {}}', b'{"signature_name": "../x", "inputs": {}}',
        b'{"inputs": {"bid": [' + b"9" * 5000 + b"]}}", b'{"inputs": {"": []}}', b'{"x": 1}',
        b'{"signature_name": "predict", "instances": [{"b64": "AAAA"}]}',
        b'{"signature_name": "predict", "inputs": [5]}',
        b'{"signature_name": "predict", "inputs": []}',
        b'{"signature_name": "predict", "inputs": {"examples": {"b64": ""}}}',
    ],
)  # fmt: skip
def test_malformed_json_is_a_400(shared_server: Any, content: bytes) -> None:
    answer = post(shared_server, content)
    assert answer.status_code == 400
    assert answer.json()["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(where=st.sampled_from(["inputs", "instances", "bid", "user_id", "whole"]), value=JSON)
def test_any_json_is_answered(
    shared_server: Any, request_rows: Rows, where: str, value: Any
) -> None:
    body: Any = {"inputs": request_rows}
    if where == "whole":
        body = value
    elif where in ("inputs", "instances"):
        body = {where: value}
    else:
        body = {"inputs": {**request_rows, where: value}}
    answer = post(shared_server, json.dumps(body).encode())
    assert answer.status_code in (200, 400)
    assert ("error" in answer.json()) == (answer.status_code == 400)


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    dtype=st.integers(0, 30), shape=st.lists(st.integers(-2, 1 << 40), max_size=4),
    floats=st.lists(st.floats(width=32), max_size=3), content=st.binary(max_size=9),
)  # fmt: skip
def test_any_tensor_is_answered(
    shared_server: Any, dtype: int, shape: list[int], floats: list[float], content: bytes
) -> None:
    request = PredictRequest()
    request.model_spec.name = "shop"
    tensor = request.inputs["bid"]
    tensor.dtype = dtype  # type: ignore[assignment]
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.float_val.extend(floats)
    tensor.tensor_content = content
    with grpc.insecure_channel(shared_server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.Predict(request, 60)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_malformed_protobuf_is_refused(shared_server: Any) -> None:
    noise = random.Random(0)
    with grpc.insecure_channel(shared_server.grpc) as channel:
        call = channel.unary_unary(PREDICT)
        for length in (1, 100, 10_000):
            with pytest.raises(grpc.RpcError) as error:
                call(noise.randbytes(length), timeout=60)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "no PredictRequest" in error.value.details()
        with pytest.raises(grpc.RpcError) as error:
            call(bytes(5 << 20), timeout=60)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_one_bad_example_spoils_no_other_request(shared_server: Any, version: Path) -> None:
    good = tf.train.Example().SerializeToString()
    found: list[tuple[bytes, str]] = []

    def send(example: bytes) -> None:
        request = PredictRequest()
        request.model_spec.name = "shop"
        request.model_spec.signature_name = "predict"
        request.inputs["examples"].CopyFrom(tf.make_tensor_proto([example]))
        with grpc.insecure_channel(shared_server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            try:
                stub.Predict(request, 60)
                found.append((example, "OK"))
            except grpc.RpcError as error:
                found.append((example, error.code().name))

    threads = [threading.Thread(target=send, args=(e,)) for e in [good, BAD] * 12]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24
    assert set(found) == {(good, "OK"), (BAD, "INVALID_ARGUMENT")}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_a_413(shared_server: Any, chunked: bool) -> None:
    size = 64 << 20
    pieces = (b"x" * 65_536 for _ in range(size // 65_536))
    head = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
    with socket.create_connection(("127.0.0.1", shared_server.rest_port), 60) as client:
        client.sendall(
            f"POST /v1/models/shop:predict HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode()
        )
        try:
            for piece in pieces:
                client.sendall(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
        except OSError:
            pass  # it hung up on us, as it should
        else:
            pytest.fail("64 MiB were taken")


def test_a_million_ids_are_refused_or_counted(shared_server: Any, request_rows: Rows) -> None:
    million = {name: ["1"] * 400_000 for name in request_rows}
    answer = post(shared_server, json.dumps({"inputs": million}).encode())
    assert answer.status_code == 413
    one = {name: values[:1] for name, values in request_rows.items()}
    many = {**one, "user_id": ["1"] * 1_000_000}
    answer = post(shared_server, json.dumps({"inputs": many}, separators=(",", ":")).encode())
    assert answer.status_code == 400
    assert "'" in answer.json()["error"]
    long = {**one, "query_text": ["word " * 200_000]}
    assert post(shared_server, json.dumps({"inputs": long}).encode()).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e%2fetc",
        "/v1/models/shop/../shop",
        "/v1/models/shop%00", "/v1/models/shop/versions/-1", "/v1/models/shop/versions/0",
        "/v1/models/shop/versions/1e3",
        "/v1/models/shop/versions/99999999999999999999", "/v1/models/shop/labels/..",
        "/v1/models/shop/versions/1/../../other", "//v1/models/shop", "/v1/models/", "/",
        "/v1/models/shop:predict:predict", "/v1/models/SHOP", "/v1/models/sh%6Fp/",
    ],
)  # fmt: skip
def test_path_tricks_are_a_404(shared_server: Any, path: str) -> None:
    with socket.create_connection(("127.0.0.1", shared_server.rest_port), 60) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = client.makefile("rb").read()
    assert answer.split(b" ")[1] == b"404"
    assert b"root:" not in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 200_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 30_000, b"431"),
        (b"GET /" + b"a" * 100_000, b"431"),
        (b"POST /v1/models/shop:predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"400"),
        (
            b"POST /v1/models/shop:predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
            b"\r\nZZ\r\n",
            b"400",
        ),
    ],
)
def test_what_is_no_http_is_refused(shared_server: Any, sent: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", shared_server.rest_port), 60) as client:
        client.sendall(sent)
        answer = client.recv(4096)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == status
    assert json.loads(body)["error"]


def test_slow_clients_are_let_go(
    serve: Any, models: Path, request_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 1.0)
    with serve(models, request_timeout_s=4.0) as server:
        address = ("127.0.0.1", server.rest_port)
        silent = [socket.create_connection(address, 60) for _ in range(50)]
        dripping = socket.create_connection(address, 60)
        dripping.sendall(b"GET /healthz HTT")
        slow_body = socket.create_connection(address, 60)
        slow_body.sendall(
            b"POST /v1/models/shop:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"
        )
        body = {"inputs": request_rows}
        assert httpx.post(f"{server.rest}:predict", json=body, timeout=60).status_code == 200
        for client in (*silent, dripping, slow_body):
            assert client.makefile("rb").read().split(b" ")[1] == b"408"
            client.close()


def test_ten_thousand_connections(
    serve: Any, models: Path, request_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 3.0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # This process holds both ends, of 200 connections at least.
    n = min(10_000, hard - 2_000)
    with serve(models, max_connections=200) as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        before = rss_mb()
        clients = []
        for _ in range(n):
            clients.append(socket.create_connection(("127.0.0.1", server.rest_port), 60))
        answers = Counter(client.makefile("rb").read().split(b" ")[1] for client in clients)
        # Those that were let in said nothing, so they were let go as well.
        assert set(answers) == {b"503", b"408"}
        assert answers[b"503"] + answers[b"408"] == n
        assert rss_mb() - before < 200
        body = {"inputs": request_rows}
        assert httpx.post(f"{server.rest}:predict", json=body, timeout=60).status_code == 200
        for client in clients:
            client.close()


def test_a_full_queue_turns_requests_away(serve: Any, models: Path, request_rows: Rows) -> None:
    with serve(models, max_queued_rows=2) as server:
        answer = post(server, json.dumps({"inputs": request_rows}).encode())
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        one = {name: values[:1] for name, values in request_rows.items()}
        assert post(server, json.dumps({"inputs": one}).encode()).status_code == 200
