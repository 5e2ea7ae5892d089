"""Whether a request obeys every rule of the contract: a quick yes, or a no that says nothing more.

Owns the quick look, made of the contract's own descriptors once per message type. Nearly every request is in order, and
to say so takes a tenth of what it takes to say what is wrong, which is validation.py's. A rule that this file does not
know makes the whole type a no, so that nothing slips through when the contract gets a new one.

Messages are looked at through their twins (columns.py), whose fields have the same names.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2
from market.inference.v1 import inference_pb2
from wire import contract
from wire.columns import array

Look = Callable[[Any], bool]

_OHLC = ("open", "high", "low", "close")
_NUMBER_BYTES = 8


def conforms(kind: type[Message], twin: Message) -> bool:
    """Whether `twin`, a request of the public type `kind`, obeys. False may also mean that a closer look is needed."""
    return _look(kind.DESCRIPTOR)(twin)


class _UnknownRuleError(Exception):
    """The contract has a rule that this file does not know."""


@cache
def _look(descriptor: Descriptor) -> Look:
    try:
        return _message(descriptor)
    except _UnknownRuleError:
        return lambda _: False


def _message(descriptor: Descriptor) -> Look:
    if descriptor.GetOptions().Extensions[validate_pb2.message].ByteSize():
        raise _UnknownRuleError(descriptor.full_name)
    looks = [(field.name, look) for field in descriptor.fields if (look := _field(field)) is not None]
    panel = descriptor is inference_pb2.Panel.DESCRIPTOR

    def obeys(message: Any) -> bool:
        for name, look in looks:
            if not look(getattr(message, name)):
                return False
        return not panel or _ordered(message)

    return obeys


def _field(field: FieldDescriptor) -> Look | None:
    """The look at one field's value; None where there is nothing to look at."""
    if contract.column_rules(field).ByteSize():
        return _column(field)
    rules = dict(_flat(contract.field_rules(field)))
    if field.message_type is not None and not field.is_repeated and rules:
        raise _UnknownRuleError(field.full_name)
    looks = []
    if field.is_repeated:
        looks = [*_list(field, rules)]
    elif field.message_type is None:
        looks = [*_single(rules, f"{_KINDS.get(field.type, '')}.")]
    if rules:
        raise _UnknownRuleError(f"{field.full_name}: {', '.join(rules)}")
    return _all(looks)


_KINDS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_DOUBLE: "double",
}


def _flat(rules: Message, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every rule that is set, by its dotted name."""
    for field, value in rules.ListFields():
        if isinstance(value, Message):
            yield from _flat(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def _list(field: FieldDescriptor, rules: dict[str, Any]) -> Iterator[Look]:
    """The rules of a list or a map; each one understood is taken out of `rules`."""
    least = rules.pop("repeated.min_items", 0)
    most = min(rules.pop("repeated.max_items", math.inf), rules.pop("map.max_pairs", math.inf))
    yield lambda values: least <= len(values) <= most
    if rules.pop("repeated.unique", False):
        yield lambda values: len(set(values)) == len(values)
    each = _all([*_single(rules, f"repeated.items.{_KINDS.get(field.type, '')}."), *_single(rules, "map.keys.string.")])
    if field.message_type is not None and not field.message_type.GetOptions().map_entry:
        each = _message(field.message_type)
    if each is not None:
        yield lambda values: all(map(each, values))


def _single(rules: dict[str, Any], prefix: str) -> Iterator[Look]:
    """The rules of one text or number; each one understood is taken out of `rules`."""
    least, most = rules.pop(f"{prefix}min_len", 0), rules.pop(f"{prefix}max_len", math.inf)
    if least or most != math.inf:
        yield lambda text: least <= len(text) <= most
    if pattern := rules.pop(f"{prefix}pattern", ""):
        found = re.compile(pattern).search
        yield lambda text: found(text) is not None
    above, below = rules.pop(f"{prefix}gt", -math.inf), rules.pop(f"{prefix}lt", math.inf)
    if above != -math.inf or below != math.inf:
        yield lambda number: above < number < below
    low, high = rules.pop(f"{prefix}gte", -math.inf), rules.pop(f"{prefix}lte", math.inf)
    if low != -math.inf or high != math.inf:
        yield lambda number: low <= number <= high


def _all(looks: list[Look]) -> Look | None:
    if len(looks) < 2:
        return looks[0] if looks else None
    return lambda value: all(look(value) for look in looks)


def _column(field: FieldDescriptor) -> Look:
    column = contract.column_rules(field)
    rules = dict(_flat(contract.field_rules(field)))
    least = rules.pop("repeated.min_items", 0) * _NUMBER_BYTES
    most = rules.pop("repeated.max_items", math.inf) * _NUMBER_BYTES
    if rules or not column.finite:
        raise _UnknownRuleError(field.full_name)
    non_negative = column.non_negative

    def obeys(values: bytes) -> bool:
        size = len(values)
        if not least <= size <= most or size % _NUMBER_BYTES:
            return False
        numbers = array(values)
        if not np.logical_and.reduce(np.isfinite(numbers)):
            return False
        return not (non_negative and size and np.minimum.reduce(numbers) < 0)

    return obeys


def _ordered(panel: Any) -> bool:
    """Columns of one length, low <= open/close <= high; a panel of closes alone has nothing to order."""
    size = len(panel.close)
    columns = [getattr(panel, name) for name in _OHLC]
    if len(panel.volume) not in (0, size):
        return False
    if any(len(column) != size for column in columns):
        return not any(columns[:3])
    opened, high, low, close = map(array, columns)
    return _none(np.minimum(opened, close) < low) and _none(np.maximum(opened, close) > high)


def _none(truths: Any) -> bool:
    return not np.logical_or.reduce(truths)
