"""Whether a request obeys every rule of the contract: a quick yes, or a no that says nothing more.

Owns the quick look, made of the contract's own descriptors once per message type. Nearly every request is in order, and
to say so takes a tenth of what it takes to say what is wrong, which is validation.py's. A rule that this file does not
know makes the whole type a no, so that nothing slips through when the contract gets a new one.

Messages are looked at through their twins (columns.py), whose fields have the same names.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from market_inference.contract import methods
from market_inference.contract.encoding import twins
from market_inference.contract.encoding.twins import NUMBER_BYTES, Array, array
from market_inference.contract.generated import inference_pb2, validate_pb2

Look = Callable[[Any], bool]

_OHLC = ("open", "high", "low", "close")
_COLUMNS = attrgetter(*_OHLC, "volume")
# Items that are looked at together: enough to share the cost, and few enough to stay in the caches.
_TOGETHER = 32
_REMEMBERED, _REMEMBERED_BYTES = 4096, 512


def conforms(kind: type[Message], raw: bytes, rest: bytes | None = None) -> bool:
    """Whether the bytes are a request of the public type `kind` that obeys, and twins.read() holds all of it.

    False may also mean that a closer look is needed. `rest` is what twins.split() says, where that is known.
    """
    message = twins.read(kind, raw)
    if message is None:
        return False
    if kind not in twins.ITEMS:
        return _look(kind.DESCRIPTOR)(message)
    if rest is None:
        split = twins.split(kind, raw)
        if split is None:
            return False
        rest = split.rest
    return _look(kind.DESCRIPTOR)((message, rest))


class _UnknownRuleError(Exception):
    """The contract has a rule that this file does not know."""


@cache
def _look(descriptor: Descriptor) -> Look:
    kind = GetMessageClass(descriptor)
    try:
        return _split(kind, descriptor) if kind in twins.ITEMS else _message(descriptor)
    except _UnknownRuleError:
        return lambda _: False


def _split(kind: type[Message], descriptor: Descriptor) -> Look:
    """The items are looked at together, the rest is known by its bytes: callers send the same again and again."""
    name = twins.ITEMS[kind]
    items = descriptor.fields_by_name[name]
    rules = dict(_flat(methods.field_rules(items)))
    least, most = rules.pop("repeated.min_items", 0), rules.pop("repeated.max_items", math.inf)
    if rules or items.message_type is None:
        raise _UnknownRuleError(items.full_name)
    every = _every(items.message_type)
    others = _message(descriptor, but=items.number)
    in_order = _remembered(_of_bytes(kind, lambda message: not getattr(message, name) and others(message)))

    def obeys(request: tuple[Any, bytes]) -> bool:
        message, rest = request
        found = getattr(message, name)[:]
        return (
            least <= len(found) <= most
            and in_order(rest)
            and all(every(found[at : at + _TOGETHER]) for at in range(0, len(found), _TOGETHER))
        )

    return obeys


def _every(descriptor: Descriptor) -> Look:
    """The look at messages of one type, field by field over all: at arrays in a row it costs as much as at one."""
    if descriptor is inference_pb2.Panel.DESCRIPTOR:
        return _panels(descriptor)
    _know(descriptor)
    looks = []
    for field in descriptor.fields:
        if methods.column_rules(field).ByteSize():
            looks.append((attrgetter(field.name), _columns(field)))
        elif (each := _field(field)) is not None:
            looks.append((attrgetter(field.name), _each(each)))
    return lambda messages: all(look([*map(value, messages)]) for value, look in looks)


def _each(look: Look) -> Look:
    return lambda values: all(map(look, values))


def _of_bytes(kind: type[Message], look: Look) -> Look:
    """The look at a message that is still in its bytes."""

    def obeys(raw: bytes) -> bool:
        message = twins.read(kind, raw)
        return message is not None and look(message)

    return obeys


def _remembered(look: Look) -> Look:
    """The look at bytes that come again and again."""
    known = lru_cache(maxsize=_REMEMBERED)(look)
    return lambda raw: known(raw) if len(raw) <= _REMEMBERED_BYTES else look(raw)


def _message(descriptor: Descriptor, but: int = 0) -> Look:
    """The look at a message, the field of the number `but` left out."""
    _know(descriptor)
    fields = [field for field in descriptor.fields if field.number != but]
    looks = [(field.name, look) for field in fields if (look := _field(field)) is not None]

    def obeys(message: Any) -> bool:
        for name, look in looks:  # noqa: SIM110 -- all() over a generator takes half as long again
            if not look(getattr(message, name)):
                return False
        return True

    return obeys


def _know(descriptor: Descriptor) -> None:
    """Raises _UnknownRuleError when a message has rules beside its fields'."""
    own: list[Message] = [descriptor.GetOptions().Extensions[validate_pb2.message]]
    own += [choice.GetOptions().Extensions[validate_pb2.oneof] for choice in descriptor.oneofs]
    if any(rules.ByteSize() for rules in own):
        raise _UnknownRuleError(descriptor.full_name)


def _field(field: FieldDescriptor) -> Look | None:
    """The look at one field's value; None where there is nothing to look at."""
    if methods.column_rules(field).ByteSize():
        raise _UnknownRuleError(f"{field.full_name}: a column by itself")
    if field.message_type is not None and not field.is_repeated:
        raise _UnknownRuleError(f"{field.full_name}: what is inside")
    rules = dict(_flat(methods.field_rules(field)))
    looks = [*_list(field, rules)] if field.is_repeated else [*_single(rules, f"{_KINDS.get(field.type, '')}.")]
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
    unique = rules.pop("repeated.unique", False)
    each = _all([*_single(rules, f"repeated.items.{_KINDS.get(field.type, '')}."), *_single(rules, "map.keys.string.")])
    if field.message_type is not None and not field.message_type.GetOptions().map_entry:
        each = _message(field.message_type)
        if field.message_type is inference_pb2.IndicatorSpec.DESCRIPTOR:
            # Its twin is its own bytes.
            each = _remembered(_of_bytes(inference_pb2.IndicatorSpec, each))
    if field.type == FieldDescriptor.TYPE_DOUBLE and each is not None:
        yield _numbers(unique, each)
    elif unique:
        raise _UnknownRuleError(field.full_name)
    elif each is not None:
        yield _each(each)


def _numbers(unique: bool, each: Look) -> Look:
    """A short list of numbers, such as levels: callers send the same one again and again."""

    @lru_cache(maxsize=_REMEMBERED)
    def obeys(values: tuple[float, ...]) -> bool:
        return (not unique or len(set(values)) == len(values)) and all(map(each, values))

    return lambda values: obeys(tuple(values))


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
    first, rest = looks[0], _all(looks[1:])
    return lambda value: first(value) and rest(value)  # type: ignore[misc]  # there is a rest


def _columns(field: FieldDescriptor) -> Look:
    """The look at a column of several messages."""
    least, most = _sizes(field)
    if methods.column_rules(field).non_negative:
        raise _UnknownRuleError(field.full_name)

    def obeys(found: Sequence[bytes]) -> bool:
        sizes = {*map(len, found)}
        return (
            least <= min(sizes)
            and max(sizes) <= most
            and not any(size % NUMBER_BYTES for size in sizes)
            and _finite(array(b"".join(found)))
        )

    return obeys


def _sizes(field: FieldDescriptor) -> tuple[float, float]:
    """A column's least and most bytes. Its values have to be finite."""
    rules = dict(_flat(methods.field_rules(field)))
    sizes = (
        rules.pop("repeated.min_items", 0) * NUMBER_BYTES,
        rules.pop("repeated.max_items", math.inf) * NUMBER_BYTES,
    )
    if rules or not methods.column_rules(field).finite:
        raise _UnknownRuleError(field.full_name)
    return sizes


def _panels(descriptor: Descriptor) -> Look:
    """Columns of one length, low <= open/close <= high, no negative volume; closes alone have no order."""
    fields = descriptor.fields_by_name
    sizes = {name: _sizes(fields[name]) for name in (*_OHLC, "volume")}
    least, most = sizes["close"]
    symbol = _field(fields["symbol"])
    others = {name for name in fields if methods.column_rules(fields[name]).non_negative}
    if others != {"volume"} or any(sizes[name] != (0, most) for name in (*_OHLC[:3], "volume")) or symbol is None:
        raise _UnknownRuleError(descriptor.full_name)
    if set(fields) != {*sizes, "symbol"}:
        raise _UnknownRuleError(f"{descriptor.full_name}: a field that nobody looks at")

    def obeys(panels: Sequence[Any]) -> bool:
        # Panels of one shape are looked at as one array.
        alike: defaultdict[tuple[int, int, int, int, int], list[bytes]] = defaultdict(list)
        for panel in panels:
            found = _COLUMNS(panel)
            if not symbol(panel.symbol):
                return False
            alike[tuple(map(len, found))] += found  # type: ignore[index]  # there are five
        return all(shape(*lengths, b"".join(found)) for lengths, found in alike.items())

    def shape(opened: int, high: int, low: int, size: int, volume: int, found: bytes) -> bool:
        if not least <= size <= most or size % NUMBER_BYTES or volume not in (0, size):
            return False
        if (opened, high, low) != (size, size, size):
            return not (opened or high or low or volume) and _finite(array(found))
        bars, whole = size // NUMBER_BYTES, array(found)
        columns = whole.reshape(-1, 5 if volume else 4, bars)
        first, highest, lowest, close = (columns[:, place] for place in range(4))
        return (
            _finite(whole)
            and not np.count_nonzero(np.minimum(first, close) < lowest)
            and not np.count_nonzero(np.maximum(first, close) > highest)
            and not np.count_nonzero(columns[:, 4:] < 0)
        )

    return obeys


def _finite(numbers: Array) -> bool:
    return bool(np.count_nonzero(np.isfinite(numbers)) == numbers.size)
