"""The REST interface in OpenAPI's words, with the inputs of the version that is stable now.

Two things JSON Schema cannot say: the columns of ``inputs`` are of one length, and the strings of
the signature ``predict`` are serialised ``tf.Example``. A body may fit the schema and still get a
400 for those.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import tensorflow as tf

from serving.server.model import ServedModel, Signature
from serving.server.options import ServerOptions
from serving.signatures import DEFAULT

Json = dict[str, Any]

_TEXT: Json = {
    "anyOf": [
        {"type": ["string", "null"]},
        {
            "type": "object",
            "properties": {"b64": {"type": "string", "format": "byte"}},
            "required": ["b64"],
            "additionalProperties": False,
        },
    ]
}
_NUMBER: Json = {"type": ["number", "null"]}
_TOKENS: Json = {"type": ["array", "null"], "items": _TEXT}
_OUTPUT: Json = {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}
_REFUSALS = {
    400: "The request does not fit; the message names the input and the row.",
    401: "The bearer token is missing or wrong.",
    404: "No such version, label or path.",
    405: "Another HTTP method goes with this path.",
    408: "The request came too slowly.",
    413: "The body is too long.",
    429: "Too much is waiting already.",
    431: "The head of the request is too long.",
    503: "No version is loaded, or too many connections are open.",
}


def describe(options: ServerOptions, model: ServedModel | None) -> Json:
    """Returns the OpenAPI 3.1 document of a server.

    Args:
        options: Name, token and bounds.
        model: The stable version; None leaves rows undescribed.
    """
    root = f"/v1/models/{quote(options.name, safe='')}"
    body = _predict_body(model, options.max_request_rows) if model else {"type": "object"}
    paths: Json = {
        "/healthz": {"get": _get("Tells that the process lives.", _any_object(), open_to_all=True)},
        "/readyz": {"get": _get("Tells whether a version is loaded.", _READY, open_to_all=True)},
        "/openapi.json": {"get": _get("This document.", _any_object())},
        "/metrics": {"get": _operation("Metrics for Prometheus.", "text/plain", _string())},
    }
    for suffix, parameter in _places(model).items():
        shared = {"parameters": [parameter]} if parameter else {}
        paths[root + suffix] = {"get": _get("State of the versions.", _STATUS), **shared}
        paths[root + suffix + "/metadata"] = {
            "get": _get("Signatures of a version.", _METADATA), **shared,
        }  # fmt: skip
        paths[root + suffix + ":predict"] = {
            "post": {
                **_get("Computes rows (`instances`) or columns (`inputs`).", _PREDICTIONS),
                "requestBody": {
                    "required": True, "content": {"application/json": {"schema": body}},
                },
            },
            **shared,
        }  # fmt: skip
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": f"{options.name}, served by octr", "version": "1"},
        "paths": paths,
    }
    if options.token:
        document["components"] = {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        }
        document["security"] = [{"token": []}]
    return document


def _places(model: ServedModel | None) -> dict[str, Json]:
    number: Json = {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}
    if model:
        number["examples"] = [model.version]
    shared = {"in": "path", "required": True}
    return {
        "": {},
        "/versions/{version}": {**shared, "name": "version", "schema": number},
        "/labels/{label}": {**shared, "name": "label", "schema": {"enum": ["stable", "canary"]}},
    }


def _predict_body(model: ServedModel, max_rows: int) -> Json:
    forms = [
        form
        for signature in model.signatures.values()
        for form in (_rows_form(signature, max_rows), _columns_form(signature, max_rows))
    ]
    return {"anyOf": forms}


def _rows_form(signature: Signature, max_rows: int) -> Json:
    cells = _cells(signature)
    rows = _list_of(_object(cells), max_rows)
    if len(cells) == 1:
        (alone,) = cells.values()
        rows = {"anyOf": [rows, _list_of(alone, max_rows)]}
    return _form(signature, "instances", rows)


def _columns_form(signature: Signature, max_rows: int) -> Json:
    columns = {name: _list_of(cell, max_rows) for name, cell in _cells(signature).items()}
    inputs = _object(columns)
    if len(columns) == 1:
        inputs = {"anyOf": [inputs, *columns.values()]}
    return _form(signature, "inputs", inputs)


def _form(signature: Signature, key: str, rows: Json) -> Json:
    # Nothing, or an empty name, stands for the default.
    names = [signature.name, ""] if signature.name == DEFAULT else [signature.name]
    needed = [key] if signature.name == DEFAULT else [key, "signature_name"]
    properties = {"signature_name": {"enum": names}, key: rows}
    return {**_object(properties), "required": needed}


def _cells(signature: Signature) -> dict[str, Json]:
    return {
        name: _TOKENS if spec.shape.rank == 2 else _TEXT if spec.dtype == tf.string else _NUMBER
        for name, spec in signature.inputs.items()
    }


def _list_of(items: Json, longest: int) -> Json:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": longest}


def _object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _any_object() -> Json:
    return {"type": "object"}


def _string() -> Json:
    return {"type": "string"}


def _get(summary: str, schema: Json, open_to_all: bool = False) -> Json:
    return _operation(summary, "application/json", schema, open_to_all)


def _operation(summary: str, media: str, schema: Json, open_to_all: bool = False) -> Json:
    error = {"application/json": {"schema": _object({"error": _string()})}}
    if schema is _READY:
        error["application/json"]["schema"] = {"anyOf": [_READY, _object({"error": _string()})]}
    responses = {
        "200": {"description": "The answer.", "content": {media: {"schema": schema}}},
        **{str(code): {"description": text, "content": error} for code, text in _REFUSALS.items()},
    }
    return {"summary": summary, "responses": responses, **({"security": []} if open_to_all else {})}


_READY: Json = _object({"ready": {"type": "boolean"}})
_STATUS: Json = _object(
    {
        "model_version_status": {
            "type": "array",
            "items": _object(
                {
                    "version": {"type": "string", "pattern": "^[0-9]+$"},
                    "state": {
                        "enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]
                    },
                    "status": _object({"error_code": _string(), "error_message": _string()}),
                }
            ),
        }
    }
)
_METADATA: Json = _object({"model_spec": _any_object(), "metadata": _any_object()})
_PREDICTIONS: Json = {
    "anyOf": [
        _object(
            {"predictions": {"type": "array", "items": {"additionalProperties": _OUTPUT}}},
        ),
        _object(
            {
                "outputs": {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": _OUTPUT},
                }
            }
        ),
    ]
}
