"""Message types with rules that the contract does not have (yet), made while a test runs."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from market_inference.contract.encoding import twins
from market_inference.contract.generated import options_pb2, validate_pb2
from market_inference.contract.validation import fast

Field = descriptor_pb2.FieldDescriptorProto
_counter = itertools.count()


def message_type(fill: Callable[[descriptor_pb2.DescriptorProto], None]) -> type[Message]:
    """The class of a new message type M that `fill` gives its fields."""
    name = f"scratch{next(_counter)}"
    imports = [validate_pb2.DESCRIPTOR.name, options_pb2.DESCRIPTOR.name]
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3", dependency=imports)
    fill(file.message_type.add(name="M"))
    pool: Any = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{name}.M"))


def with_field(
    rules: dict[str, Any], form: str = "single", *, kind: str = "string", pattern_message: str = ""
) -> type[Message]:
    """A type with one field `value`: `single`, `optional`, `repeated`, or `nested` in a list of messages.

    `rules` are FieldRules: names of the rules of `kind` (string, uint32, double), and `required`, `ignore`, `cel`,
    `unique`.
    """

    def fill(message: descriptor_pb2.DescriptorProto) -> None:
        holder = message
        if form == "nested":
            holder = message.nested_type.add(name="Inner")
            message.field.add(
                name="inner", number=1, type=Field.TYPE_MESSAGE, label=Field.LABEL_REPEATED, type_name="Inner"
            )
        label = Field.LABEL_REPEATED if form == "repeated" else Field.LABEL_OPTIONAL
        field = holder.field.add(name="value", number=1, type=f"TYPE_{kind.upper()}", label=label)
        if form == "optional":
            field.proto3_optional, field.oneof_index = True, 0
            holder.oneof_decl.add(name="_value")
        own = field.options.Extensions[validate_pb2.field]
        if rules.get("unique"):
            own.repeated.unique = True
        _set(own.repeated.items if form == "repeated" else own, rules, kind)
        if pattern_message:
            field.options.Extensions[options_pb2.pattern_message] = pattern_message

    return message_type(fill)


def with_message_rule(expression: str) -> type[Message]:
    """A type with one text `value` and a rule of the whole message in CEL."""

    def fill(message: descriptor_pb2.DescriptorProto) -> None:
        message.field.add(name="value", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
        rule = message.options.Extensions[validate_pb2.message].cel.add()
        rule.id, rule.message, rule.expression = "scratch", "breaks a rule in CEL", expression

    return message_type(fill)


def _set(own: validate_pb2.FieldRules, rules: dict[str, Any], kind: str) -> None:
    for name, value in rules.items():
        if name == "unique":
            continue
        if name in {"required", "ignore"}:
            setattr(own, name, value)
        elif name == "cel":
            own.cel.add(id="scratch", message="breaks a rule in CEL", expression=value)
        elif isinstance(value, Iterable) and not isinstance(value, str):
            getattr(getattr(own, kind), name).extend(value)
        else:
            setattr(getattr(own, kind), name, value)


def of_values(made: type[Message], form: str, *values: str | float | None) -> Message:
    """A message of such a type with these values; None leaves an optional field unset."""
    message: Any = made()
    if form == "nested":
        for value in values:
            message.inner.add(value=value)
    elif form == "repeated":
        message.value.extend(values)
    elif values and values[0] is not None:
        message.value = values[0]
    return message


def conforms(kind: type[Message], raw: bytes) -> bool:
    """The fast check of a request of any type from its bytes."""
    return fast.conforms(kind, raw, twins.parse(kind, raw))
