"""The few protobuf messages that a client needs, built when this module is imported, without generated code.

``tensorflow_serving.apis`` would import all of TensorFlow (3 s, 494 MB), and TorchServe ships no stubs. These tables
hold only the fields that are used here. The messages live in descriptor pools of their own, so that the official stubs
can be imported beside them.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int64": _F.TYPE_INT64,
    "int32": _F.TYPE_INT32,
    "uint64": _F.TYPE_UINT64,
    "uint32": _F.TYPE_UINT32,
    "bool": _F.TYPE_BOOL,
    "float": _F.TYPE_FLOAT,
    "double": _F.TYPE_DOUBLE,
    "string": _F.TYPE_STRING,
    "bytes": _F.TYPE_BYTES,
}

Fields = dict[str, tuple[int, str]]
"""Fields of a message: name → (number, type). A type is a scalar, a message, ``repeated T``, ``map K V`` or
``choice T``: those that are a choice exclude each other, and the one that is set is sent even if it is zero."""

_TENSORFLOW: dict[str, Fields] = {
    "Int64Value": {"value": (1, "int64")},
    "Dim": {"size": (1, "int64"), "name": (2, "string")},
    "TensorShapeProto": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "double_val": (6, "repeated double"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
    },
    "ModelSpec": {"name": (1, "string"), "version": (2, "Int64Value"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map string TensorProto")},
    "PredictResponse": {"model_spec": (2, "ModelSpec"), "outputs": (1, "map string TensorProto")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "repeated string")},
    "GetModelMetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata": (2, "map string Any")},
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "TensorShapeProto")},
    "SignatureDef": {"inputs": (1, "map string TensorInfo"), "method_name": (3, "string")},
    "SignatureDefMap": {"signature_def": (1, "map string SignatureDef")},
}

_TORCHSERVE: dict[str, Fields] = {
    "PredictionsRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "input": (3, "map string bytes"),
    },
    "PredictionResponse": {"prediction": (1, "bytes")},
}

_TRITON: dict[str, Fields] = {
    "ModelMetadataRequest": {"name": (1, "string"), "version": (2, "string")},
    "TensorMetadata": {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "repeated int64")},
    "ModelMetadataResponse": {"name": (1, "string"), "inputs": (4, "repeated TensorMetadata")},
    "InferParameter": {
        "bool_param": (1, "choice bool"),
        "int64_param": (2, "choice int64"),
        "string_param": (3, "choice string"),
        "double_param": (4, "choice double"),
    },
    "InferTensorContents": {"fp32_contents": (6, "repeated float")},
    "InferInputTensor": {
        "name": (1, "string"),
        "datatype": (2, "string"),
        "shape": (3, "repeated int64"),
        "parameters": (4, "map string InferParameter"),
        "contents": (5, "InferTensorContents"),
    },
    "InferOutputTensor": {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "repeated int64")},
    "InferRequestedOutputTensor": {"name": (1, "string"), "parameters": (2, "map string InferParameter")},
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, "map string InferParameter"),
        "inputs": (5, "repeated InferInputTensor"),
        "outputs": (6, "repeated InferRequestedOutputTensor"),
        "raw_input_contents": (7, "repeated bytes"),
    },
    "ModelInferResponse": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "outputs": (5, "repeated InferOutputTensor"),
        "raw_output_contents": (6, "repeated bytes"),
    },
    "ModelStreamInferResponse": {"error_message": (1, "string"), "infer_response": (2, "ModelInferResponse")},
}


def _set_type(field: Any, kind: str, package: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _F.TYPE_MESSAGE, f".{package}.{kind}"


def _add_map(message: Any, field: Any, key: str, value: str, package: str) -> None:
    entry = message.nested_type.add(name="".join(word.title() for word in field.name.split("_")) + "Entry")
    entry.options.map_entry = True
    for number, (name, kind) in enumerate((("key", key), ("value", value)), start=1):
        part = entry.field.add(name=name, number=number, label=_F.LABEL_OPTIONAL)
        _set_type(part, kind, package)
    field.label, field.type = _F.LABEL_REPEATED, _F.TYPE_MESSAGE
    field.type_name = f".{package}.{message.name}.{entry.name}"


def build(package: str, messages: dict[str, Fields]) -> dict[str, Any]:
    """Return a class for each message of a table, in a descriptor pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number, label=_F.LABEL_OPTIONAL)
            match kind.split():
                case ["map", key, value]:
                    _add_map(message, field, key, value, package)
                case ["repeated", element]:
                    _set_type(field, element, package)
                    field.label = _F.LABEL_REPEATED
                case ["choice", element]:
                    _set_type(field, element, package)
                    if not message.oneof_decl:
                        message.oneof_decl.add(name="choice")
                    field.oneof_index = 0
                case _:
                    _set_type(field, kind, package)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{n}")) for n in messages}


tensorflow = build("infscale.tensorflow", _TENSORFLOW)
"""TensorFlow Serving's messages by name; on the wire they equal those of ``tensorflow_serving.apis``."""

torchserve = build("infscale.torchserve", _TORCHSERVE)
"""Messages of TorchServe's ``InferenceAPIsService`` by name."""

triton = build("infscale.triton", _TRITON)
"""Messages of KServe v2's ``GRPCInferenceService`` by name, which Triton speaks."""

DT_FLOAT, DT_UINT8, DT_STRING = 1, 4, 7
"""Numbers of TensorFlow's data types (types.proto)."""
