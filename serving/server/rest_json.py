"""TensorFlow Serving's JSON: rows (``instances``) or columns (``inputs``) to arrays and back.

Two things are taken beyond it: ``null`` for a missing value, and token lists of different lengths.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.errors import nearest
from serving.server.model import MAX_CELLS, ServedModel, Signature
from serving.server.options import RequestError

_KEYS = ("signature_name", "instances", "inputs")


def parse_request(
    body: bytes, model: ServedModel, max_rows: int
) -> tuple[str, dict[str, NDArray[Any]], bool]:
    """Reads the body of ``:predict``.

    Returns:
        Signature, inputs, and True if rows were given (and are to be answered).

    Raises:
        RequestError: the body is no JSON, or does not fit the signature; names the feature.
    """
    request = _json(body)
    if not isinstance(request, dict):
        raise RequestError("expected a JSON object with 'instances' or 'inputs'.")
    for key in request:
        if key not in _KEYS:
            raise RequestError(f"unknown key {key!r}: {nearest(key, _KEYS)}")
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError("signature_name: expected a string.")
    signature = model.signature(name)
    if ("instances" in request) == ("inputs" in request):
        raise RequestError("expected either 'instances' (rows) or 'inputs' (columns).")
    columns: Mapping[str, Any]
    if "instances" in request:
        columns = _columns_of(request["instances"], signature, max_rows)
    else:
        columns = _named(request["inputs"], signature)
    inputs = {name: _array(name, values, signature) for name, values in columns.items()}
    return signature.name, inputs, "instances" in request


def format_response(outputs: Mapping[str, NDArray[Any]], rows: bool) -> bytes:
    """Returns the body of an answer: ``predictions`` for rows, else ``outputs``."""
    lists = {name: values.tolist() for name, values in outputs.items()}
    if not rows:
        return json.dumps({"outputs": lists}).encode()
    predictions = [
        dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
    ]
    return json.dumps({"predictions": predictions}).encode()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        raise RequestError("the JSON is nested too deeply.") from None
    except ValueError as error:
        raise RequestError(f"the body is no JSON: {error}") from None


def _columns_of(instances: Any, signature: Signature, max_rows: int) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise RequestError("instances: expected a list of at least one row.")
    if len(instances) > max_rows:
        raise RequestError(f"{len(instances):,} rows in one request, at most {max_rows:,}.")
    names = list(signature.inputs)
    if len(names) == 1 and not _is_row(instances[0], names[0]):
        return {names[0]: instances}
    for place, row in enumerate(instances):
        if not isinstance(row, dict):
            raise RequestError(
                f"instances, row {place}: expected an object with one value per input."
            )
        if row.keys() != signature.inputs.keys():
            _explain(row, signature, f"instances, row {place}")
    return {name: [row[name] for row in instances] for name in names}


def _is_row(instance: Any, name: str) -> bool:
    return isinstance(instance, dict) and name in instance


def _explain(row: Mapping[str, Any], signature: Signature, where: str) -> None:
    for key in row:
        if key not in signature.inputs:
            hint = nearest(key, signature.inputs)
            raise RequestError(f"{where}: {signature.name} has no input {key!r}: {hint}")
    missing = next(name for name in signature.inputs if name not in row)
    raise RequestError(f"{where}: the input {missing!r} is missing.")


def _named(inputs: Any, signature: Signature) -> Mapping[str, Any]:
    names = list(signature.inputs)
    if len(names) == 1 and not _is_row(inputs, names[0]):
        inputs = {names[0]: inputs}
    if not isinstance(inputs, dict):
        raise RequestError("inputs: expected an object with one list per input.")
    if inputs.keys() != signature.inputs.keys():
        _explain(inputs, signature, "inputs")
    return inputs


def _array(name: str, values: Any, signature: Signature) -> NDArray[Any]:
    spec = signature.inputs[name]
    if not isinstance(values, list):
        raise RequestError(f"input {name!r}: expected a list, one value per row.")
    if spec.shape.rank == 2:
        return _tokens(name, values)
    if spec.dtype == tf.string:
        out = np.empty(len(values), object)
        out[:] = [_text(name, row, value) for row, value in enumerate(values)]
        return out
    numbers = [_number(name, row, value) for row, value in enumerate(values)]
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float64).astype(np.float32)


def _text(name: str, row: int, value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise RequestError(f"input {name!r}, row {row}: this is no Unicode text.") from None
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(f"input {name!r}, row {row}: this is no Base64.") from None
    raise RequestError(
        f"input {name!r}, row {row}: expected a string, received {_kind(value)}. Ids are strings."
    )


def _number(name: str, row: int, value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(
            f"input {name!r}, row {row}: expected a number, received {_kind(value)}."
        )
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _tokens(name: str, values: Sequence[Any]) -> NDArray[Any]:
    lists = [[] if value is None else value for value in values]
    for row, tokens in enumerate(lists):
        if not isinstance(tokens, list):
            raise RequestError(
                f"input {name!r}, row {row}: expected a list of strings, received {_kind(tokens)}."
            )
    width = max([1, *(len(tokens) for tokens in lists)])
    if width * len(lists) > MAX_CELLS:
        raise RequestError(
            f"input {name!r}: {len(lists):,} rows x {width:,} tokens, at most {MAX_CELLS:,} in all."
        )
    out = np.full((len(lists), width), b"", object)
    for row, tokens in enumerate(lists):
        out[row, : len(tokens)] = [_text(name, row, token) for token in tokens]
    return out


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", bool: "a boolean", str: "a string"}
    return kinds.get(type(value), "null" if value is None else "a number")
