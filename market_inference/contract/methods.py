"""The contract's own description of itself, read from the descriptors.

Owns which methods there are, what each may weigh and which scope it asks for. No limit is written anywhere but in the
.proto files.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from market_inference.contract.generated import inference_pb2, options_pb2, validate_pb2

SERVICE: Final = inference_pb2.DESCRIPTOR.services_by_name["MarketInferenceService"]


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of the public service."""

    name: str
    path: str
    request: type[Message]
    response: type[Message]
    max_request_bytes: int
    scope: str
    streams: bool


def _method(descriptor: MethodDescriptor) -> Method:
    rules = descriptor.GetOptions().Extensions[options_pb2.method]
    return Method(
        name=descriptor.name,
        path=f"/{SERVICE.full_name}/{descriptor.name}",
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        max_request_bytes=rules.max_request_bytes,
        scope=rules.scope,
        streams=descriptor.client_streaming or descriptor.server_streaming,
    )


METHODS: Final = {descriptor.name: _method(descriptor) for descriptor in SERVICE.methods}
SCOPES: Final = tuple(sorted({method.scope for method in METHODS.values()}))
MAX_REQUEST_BYTES: Final = max(method.max_request_bytes for method in METHODS.values())


@cache
def field_rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The protovalidate rules of a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


@cache
def column_rules(field: FieldDescriptor) -> options_pb2.ColumnRules:
    """The rules of a column of numbers, checked over the whole array."""
    return field.GetOptions().Extensions[options_pb2.column]
