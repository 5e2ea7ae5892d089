"""protovalidate's check of many scalar values against the rules of a field.

Owns the message type for the values: a list, with the field's rules as the rules of elements. A single call of
protovalidate checks all values, at about 0.2 microseconds a value.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator

from market_inference.contract.generated import validate_pb2

Check = Callable[[Sequence[Any]], bool]
"""Whether all values obey. Depending on the rule, the values are scalars, lists, maps or messages."""

VALIDATOR: Final = Validator()
_IMPORTS: Final = (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2, validate_pb2)


@cache
def _pool() -> DescriptorPool:
    """A separate pool, so that the message types made here stay out of the contract's pool."""
    pool = DescriptorPool()
    for module in _IMPORTS:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


def native(rules: validate_pb2.FieldRules, kind: int) -> Check:
    """The check of scalar values of the type `kind` (FieldDescriptor.TYPE_*, no enum) against a field's rules.

    Raises protovalidate.CompilationError for rules that protovalidate cannot compile: a pattern must be RE2.
    """
    name = f"rules_{hashlib.sha256(bytes([kind]) + rules.SerializeToString(deterministic=True)).hexdigest()}"
    try:
        descriptor = _pool().FindMessageTypeByName(f"{name}.Values")
    except KeyError:
        _pool().AddSerializedFile(_file(name, rules, kind).SerializeToString())
        descriptor = _pool().FindMessageTypeByName(f"{name}.Values")
    values_of = GetMessageClass(descriptor)
    VALIDATOR.collect_violations(values_of(), fail_fast=True)

    def check(values: Sequence[Any]) -> bool:
        return not VALIDATOR.collect_violations(values_of(values=values), fail_fast=True)

    return check


def _file(name: str, rules: validate_pb2.FieldRules, kind: int) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package=name, syntax="proto3", dependency=["buf/validate/validate.proto"]
    )
    field = file.message_type.add(name="Values").field.add(
        name="values", number=1, type=FieldDescriptorProto.Type.ValueType(kind), label="LABEL_REPEATED"
    )
    element = field.options.Extensions[validate_pb2.field].repeated.items
    element.CopyFrom(rules)
    # `required` and `ignore` depend on the field's presence: the caller applies both.
    element.ClearField("required")
    element.ClearField("ignore")
    return file
