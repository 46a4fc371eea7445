"""The gRPC interface: TensorFlow Serving's PredictionService and ModelService."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow_serving.apis.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
)
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from tensorflow_serving.apis.model_management_pb2 import (
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse

from serving.server.backend import Backend
from serving.server.metadata import metadata_of, status_of
from serving.server.model import MAX_CELLS
from serving.server.options import (
    RequestError,
    TooSlowError,
    UnsupportedError,
)

log = logging.getLogger(__name__)
_SERVICES: dict[str, dict[str, tuple[Any, Any]]] = {
    "tensorflow.serving.PredictionService": {
        "Predict": (PredictRequest, PredictResponse),
        "GetModelMetadata": (GetModelMetadataRequest, GetModelMetadataResponse),
        "Classify": (ClassificationRequest, ClassificationResponse),
        "Regress": (RegressionRequest, RegressionResponse),
        "MultiInference": (MultiInferenceRequest, MultiInferenceResponse),
    },
    "tensorflow.serving.ModelService": {
        "GetModelStatus": (GetModelStatusRequest, GetModelStatusResponse),
        "HandleReloadConfigRequest": (ReloadConfigRequest, ReloadConfigResponse),
    },
}
_TYPES = {tf.string.as_datatype_enum: "string_val", tf.float32.as_datatype_enum: "float_val"}


class Services:
    """Both services; ``handlers`` names the methods.

    Args:
        backend: What they answer from.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._options = backend.options
        self._pool = backend.pool

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns what a gRPC server routes requests by.

        Not the generated ones: to those a message that cannot be parsed is an error of the server.
        """
        return [
            grpc.method_handlers_generic_handler(
                service,
                {
                    name: grpc.unary_unary_rpc_method_handler(
                        getattr(self, name), _parser(request), response.SerializeToString
                    )
                    for name, (request, response) in methods.items()
                },
            )
            for service, methods in _SERVICES.items()
        ]

    async def Predict(self, request: PredictRequest, context: Any) -> PredictResponse:
        """Computes a signature."""
        return await self._answer("predict", self._predict, request, context)

    async def GetModelMetadata(
        self, request: GetModelMetadataRequest, context: Any
    ) -> GetModelMetadataResponse:
        """Returns the signatures of a version."""
        return await self._answer("metadata", self._metadata, request, context)

    async def GetModelStatus(
        self, request: GetModelStatusRequest, context: Any
    ) -> GetModelStatusResponse:
        """Returns the state of all versions, or of one."""
        return await self._answer("status", self._status, request, context)

    async def Classify(self, request: Any, context: Any) -> Any:
        """Refuses: there is no such signature."""
        return await self._answer("classify", _unsupported, request, context)

    async def Regress(self, request: Any, context: Any) -> Any:
        """Refuses: there is no such signature."""
        return await self._answer("regress", _unsupported, request, context)

    async def MultiInference(self, request: Any, context: Any) -> Any:
        """Refuses: there is no such signature."""
        return await self._answer("multi_inference", _unsupported, request, context)

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:
        """Refuses: versions are managed by ``octr gate`` and ``octr route``."""
        return await self._answer("reload_config", _unsupported, request, context)

    async def _answer(
        self, name: str, method: Callable[[Any], Awaitable[Any]], request: Any, context: Any
    ) -> Any:
        start = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            metadata = dict(context.invocation_metadata() or ())
            self._backend.authorize(str(metadata.get("authorization", "")))
            if isinstance(request, RequestError):
                raise request
            return await method(request)
        except RequestError as error:
            code = error.code
            await context.abort(code, str(error))
        except Exception as error:
            code = grpc.StatusCode.INTERNAL
            log.error("a request failed", exc_info=error)
            await context.abort(code, f"internal error: {type(error).__name__}")
        finally:
            self._backend.count("grpc", name, code.name, start)

    async def _predict(self, request: PredictRequest) -> PredictResponse:
        version, label = self._chosen(request.model_spec)
        with self._pool.use(version, label) as model:
            signature = model.signature(request.model_spec.signature_name)
            inputs = {name: _array(name, proto) for name, proto in request.inputs.items()}
            try:
                async with asyncio.timeout(self._options.request_timeout_s):
                    outputs = await self._backend.batcher.run(model, signature.name, inputs)
            except TimeoutError:
                raise TooSlowError("the request waited for too long.") from None
            response = PredictResponse()
            response.model_spec.name = self._options.name
            response.model_spec.version.value = model.version
            response.model_spec.signature_name = signature.name
            wanted = list(request.output_filter) or list(outputs)
            for name in wanted:
                if name not in outputs:
                    raise RequestError(f"{signature.name} has no output {name!r}.")
                _fill(response.outputs[name], outputs[name])
            return response

    async def _metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        version, label = self._chosen(request.model_spec)
        if list(request.metadata_field) != ["signature_def"]:
            raise RequestError("metadata_field: expected ['signature_def'].")
        with self._pool.use(version, label) as model:
            return metadata_of(self._options.name, model)

    async def _status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        return status_of(self._pool, *self._chosen(request.model_spec))

    def _chosen(self, spec: ModelSpec) -> tuple[int, str]:
        version = spec.version.value if spec.HasField("version") else None
        self._backend.check_model(spec.name, version)
        return spec.version.value, spec.version_label


def _parser(message: Any) -> Callable[[bytes], Any]:
    def parse(content: bytes) -> Any:
        try:
            return message.FromString(content)
        except DecodeError:
            return RequestError(f"this is no {message.DESCRIPTOR.name}.")

    return parse


async def _unsupported(request: Any) -> Any:
    raise UnsupportedError("these models have no signature for this; use Predict.")


def _array(name: str, proto: Any) -> NDArray[Any]:
    """Reads a tensor; its announced shape is checked before anything of that size is made."""
    field = _TYPES.get(proto.dtype)
    if field is None:
        raise RequestError(f"input {name!r}: expected string or float32.")
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    size = math.prod(shape)
    if proto.tensor_shape.unknown_rank or any(length < 0 for length in shape):
        raise RequestError(f"input {name!r}: the shape is not given in full.")
    if size > MAX_CELLS or max(shape, default=0) > MAX_CELLS or len(shape) > 2:
        raise RequestError(f"input {name!r}: shape {shape[:4]} is too large.")
    if field == "float_val" and proto.tensor_content:
        if len(proto.tensor_content) != 4 * size:
            raise RequestError(f"input {name!r}: tensor_content does not fit the shape {shape}.")
        return np.frombuffer(proto.tensor_content, np.float32).reshape(shape)
    values = getattr(proto, field)
    if len(values) != size and not (len(values) == 1 and size):
        raise RequestError(f"input {name!r}: {len(values)} values for the shape {shape}.")
    out = np.empty(size, object if field == "string_val" else np.float32)
    out[:] = list(values) if len(values) == size else list(values) * size
    return out.reshape(shape)


def _fill(proto: Any, values: NDArray[Any]) -> None:
    # As TensorFlow Serving does by default: typed values, which clients read directly.
    proto.dtype = tf.float32.as_datatype_enum
    for length in values.shape:
        proto.tensor_shape.dim.add().size = length
    proto.float_val.extend(values.ravel().tolist())
