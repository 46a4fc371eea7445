"""Status and signatures of versions, in the messages of TensorFlow Serving."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf.error_codes_pb2 import ABORTED, OK
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus

from serving.server.model import ServedModel
from serving.server.options import NotFoundError
from serving.server.pool import ModelPool


def status_of(pool: ModelPool, version: int = 0, label: str = "") -> GetModelStatusResponse:
    """Returns the status of one version, or of all, newest first.

    Raises:
        NotFoundError: this version was never seen, or nothing has this label.
    """
    if label:
        with pool.use(label=label) as model:
            version = model.version
    known = {v: s for v, s in pool.statuses.items() if version in (0, v)}
    if version and not known:
        raise NotFoundError(f"version {version} is not known.")
    response = GetModelStatusResponse()
    for number in sorted(known, reverse=True):
        status = response.model_version_status.add()
        status.version = number
        status.state = ModelVersionStatus.State.Value(known[number].state)
        status.status.error_code = ABORTED if known[number].error else OK
        status.status.error_message = known[number].error
    return response


def status_json(response: GetModelStatusResponse) -> dict[str, object]:
    """Returns a status as TensorFlow Serving's REST interface writes it."""
    return MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def metadata_of(name: str, model: ServedModel) -> GetModelMetadataResponse:
    """Returns a model's signatures."""
    signatures = SignatureDefMap()
    for key, definition in model.signature_defs.items():
        signatures.signature_def[key].CopyFrom(definition)
    response = GetModelMetadataResponse()
    response.model_spec.name = name
    response.model_spec.version.value = model.version
    packed = AnyMessage()
    packed.Pack(signatures)
    response.metadata["signature_def"].CopyFrom(packed)
    return response


def metadata_json(name: str, model: ServedModel) -> dict[str, object]:
    """Returns a model's signatures as TensorFlow Serving's REST interface writes them."""
    signatures = SignatureDefMap()
    for key, definition in model.signature_defs.items():
        signatures.signature_def[key].CopyFrom(definition)
    plain = MessageToDict(
        signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    spec = {"name": name, "signature_name": "", "version": str(model.version)}
    return {"model_spec": spec, "metadata": {"signature_def": plain}}
