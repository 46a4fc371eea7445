"""Tokens and TLS, over both interfaces."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest

from ctr.errors import ConfigError

TOKEN = "a token of more than 16 characters"


def status(channel: grpc.Channel, token: str = "") -> str:
    request = GetModelStatusRequest()
    request.model_spec.name = "shop"
    metadata = [("authorization", f"Bearer {token}")] if token else []
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    try:
        stub.GetModelStatus(request, 60, metadata=metadata)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def test_a_token_guards_everything_but_health(serve: Any, models: Path) -> None:
    with serve(models, token=TOKEN) as server:
        for path in ("/v1/models/shop", "/metrics", "/v1/models/shop/metadata", "/nothing"):
            answer = httpx.get(f"{server.url}{path}")
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        for wrong in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"):
            headers = {"authorization": wrong.encode("latin-1")}
            assert httpx.get(server.rest, headers=headers).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.get(server.rest, headers=right).status_code == 200
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        with grpc.insecure_channel(server.grpc) as channel:
            assert status(channel) == "UNAUTHENTICATED"
            assert status(channel, "wrong") == "UNAUTHENTICATED"
            assert status(channel, TOKEN) == "OK"


def test_tls_on_both_interfaces(serve: Any, models: Path, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    with serve(models, tls_cert=cert, tls_key=key) as server:
        trusting = ssl.create_default_context(cafile=str(cert))
        assert httpx.get(server.rest, verify=trusting).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(server.rest.replace("https:", "http:"))
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        with grpc.secure_channel(server.grpc, credentials) as channel:
            assert status(channel) == "OK"
    with (
        pytest.raises(ConfigError, match="--tls-cert"),
        serve(models, tls_cert=models / "none.pem", tls_key=key),
    ):
        pass
