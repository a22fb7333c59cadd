"""GetModelStatus and GetModelMetadata as messages; REST prints the same ones as JSON."""

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from infscale.servers.asgi.status import invalid
from infscale.servers.embedded.runtime.models import Models

_STATES = get_model_status_pb2.ModelVersionStatus.State


def model_status(
    models: Models, name: str, version: int | None, label: str | None
) -> get_model_status_pb2.GetModelStatusResponse:
    """Return the state of one version of a model, or of all, newest first."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, state in models.status(name, version, label).items():
        entry = response.model_version_status.add(version=number, state=_STATES.Value(state.state))
        entry.status.error_code = int(state.code)
        entry.status.error_message = state.message
    return response


def model_metadata(
    models: Models, name: str, version: int | None, label: str | None, fields: list[str]
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Return the signatures of a model; ``signature_def`` is the one field there is."""
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != "signature_def":
            raise invalid(f"Metadata field {field} is not supported")
    servable = models.find(name, version, label)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.metadata["signature_def"].Pack(servable.definitions)
    return response
