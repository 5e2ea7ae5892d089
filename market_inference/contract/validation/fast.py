"""The fast check: whether a request obeys every rule of the contract.

Owns the composition of a message type's check from the table of rules (rules.py) and the contract's descriptors, once
per type. The answer is yes or no: most requests obey, and a yes costs a tenth of the explaining check (explain.py).

A check takes many values at once: a field of all items is checked as a single list or array. Messages are read through
twins (encoding/twins.py), with fields of the same names. Rules between fields, other than the rules of a panel, have no
fast check: a type with such a rule always takes the explaining check, and `uncovered()` names type and rule.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from market_inference.contract import methods
from market_inference.contract.encoding import twins
from market_inference.contract.encoding.in_place import InPlace
from market_inference.contract.encoding.split import ITEMS, rest_of
from market_inference.contract.encoding.twins import NUMBER_BYTES, Array, array
from market_inference.contract.generated import inference_pb2, validate_pb2
from market_inference.contract.short_cache import short_cache
from market_inference.contract.validation import bars, rules
from market_inference.contract.validation.native import Check
from market_inference.contract.validation.rules import COLUMN_RULES, RULES

_PANEL_COLUMNS: Final = (*bars.PRICES, "volume")
_columns_of = attrgetter(*_PANEL_COLUMNS)
# Items, and bytes of large ones, that are checked together: enough to share the cost, and few enough to stay in the
# processor's caches.
_ITEMS_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 256 << 10
# The cache of checks, by bytes: at most 2 MiB per message type.
_cached = short_cache(2048, most_bytes=1024, size=len)


class UncoveredRuleError(Exception):
    """A rule that has no fast check. The text names the field or message, and the rule."""


def conforms(kind: type[Message], raw: bytes, message: Any, rest: bytes | None = None) -> bool:
    """Whether a request of the public type `kind` obeys every rule, and its twin holds all of its bytes.

    False may also mean that only the explaining check can decide. `message` is the request parsed as its twin
    (twins.parse) or read in place (in_place.read), None for bytes that are no such message. `rest` are the bytes beside
    the items, where the request is split already (split_items).
    """
    check = _request_check(kind.DESCRIPTOR)
    if check is None or message is None or not (isinstance(message, InPlace) or twins.holds(message, raw)):
        return False
    if kind not in ITEMS:
        return check([message], b"", 1)
    if rest is None:
        rest = rest_of(kind, raw)
    if rest is None:
        return False
    items = getattr(message, ITEMS[kind])[:]
    at_once = _ITEMS_AT_ONCE
    if len(raw) > _BYTES_AT_ONCE:
        at_once = max(1, min(at_once, len(items) * _BYTES_AT_ONCE // len(raw)))
    return check(items, rest, at_once)


def uncovered() -> dict[str, str]:
    """The request types without a fast check: the name of the type, and the uncovered rule.

    Raises protovalidate.CompilationError for a rule that protovalidate cannot compile.
    """
    kinds = [method.request for method in methods.METHODS.values() if not method.streams]
    reasons = {kind.DESCRIPTOR.full_name: uncovered_rule(kind) for kind in kinds}
    return {name: reason for name, reason in reasons.items() if reason}


def uncovered_rule(kind: type[Message]) -> str:
    """The rule that keeps a type from the fast check; empty when the fast check covers every rule."""
    try:
        _compose(kind)
    except UncoveredRuleError as error:
        return str(error)
    return ""


RequestCheck = Callable[[Sequence[Any], bytes, int], bool]
"""The check of a request's items, so many at once, and of the bytes beside the items; without items of the request."""


@cache
def _request_check(descriptor: Descriptor) -> RequestCheck | None:
    try:
        return _compose(GetMessageClass(descriptor))
    except UncoveredRuleError:
        return None


def _compose(kind: type[Message]) -> RequestCheck:
    if kind in ITEMS:
        return _request_of_items(kind)
    check = _messages(kind.DESCRIPTOR)
    return lambda messages, *_: check is None or check(messages)


def _request_of_items(kind: type[Message]) -> RequestCheck:
    """The check of a request with items: all items together, and the rest cached by bytes, since callers repeat it."""
    name = ITEMS[kind]
    field = kind.DESCRIPTOR.fields_by_name[name]
    count = _list_rules(field)
    every, sized = count.elements or _always, count.whole or _always
    others = _messages(kind.DESCRIPTOR, but=name) or _always

    def rest_obeys(raw: bytes) -> bool:
        message = twins.read(kind, raw)
        return message is not None and not getattr(message, name) and others([message])

    rest_check = _cached(rest_obeys)

    def obeys(items: Sequence[Any], rest: bytes, at_once: int) -> bool:
        if not (sized([items]) and rest_check(rest)):
            return False
        if len(items) <= at_once:
            return every(items)
        return all(every(items[at : at + at_once]) for at in range(0, len(items), at_once))

    return obeys


def _always(_: Any) -> bool:
    return True


def _messages(descriptor: Any, but: str = "") -> Check | None:
    """The check of many messages of a type, field by field; the field named `but` is left out."""
    _refuse_rules_between_fields(descriptor)
    if descriptor is inference_pb2.Panel.DESCRIPTOR:
        return rules.all_of([*_fields(descriptor, {*_PANEL_COLUMNS}), _panels(descriptor)])
    return rules.all_of([*_fields(descriptor, {but}), *_required_choices(descriptor), *_at_least_one(descriptor)])


def _refuse_rules_between_fields(descriptor: Descriptor) -> None:
    for name, _ in rules.flat(descriptor.GetOptions().Extensions[validate_pb2.message]):
        raise UncoveredRuleError(f"{descriptor.full_name}: message.{name}")


def _required_choices(descriptor: Descriptor) -> Iterator[Check]:
    for choice in descriptor.oneofs:
        if choice.GetOptions().Extensions[validate_pb2.oneof].required:
            yield _chosen(choice.name)


def _chosen(name: str) -> Check:
    return lambda messages: all(message.WhichOneof(name) for message in messages)


def _at_least_one(descriptor: Descriptor) -> Iterator[Check]:
    names = rules.at_least_one(descriptor)
    if names:
        yield lambda messages: all(any(map(message.HasField, names)) for message in messages)


def _fields(descriptor: Descriptor, out: set[str]) -> Iterator[Check]:
    """The checks of many messages by field; the fields named in `out` are left out."""
    for field in descriptor.fields:
        if field.name not in out:
            yield from _field(field)


def _field(field: FieldDescriptor) -> Iterator[Check]:
    """The checks of many messages by a single field."""
    own = methods.field_rules(field)
    if own.ignore == validate_pb2.IGNORE_ALWAYS:
        return
    if methods.column_rules(field).ByteSize():
        least, _ = _column_bytes(field)
        yield (_of if least else _of_filled)(field.name, _column(field))
        return
    if own.required:
        yield _required(field)
    if field.is_repeated:
        count = _list_rules(field)
        if count.whole is not None:
            yield _of(field.name, count.whole)
        for elements in filter(None, (count.elements, count.keys)):
            yield _of_elements(field.name, elements)
        if count.values is not None:
            yield _of_map_values(field.name, count.values)
    elif (check := _single(field)) is not None:
        yield _of_present(field.name, check) if field.has_presence else _of(field.name, check)


def _of(name: str, check: Check) -> Check:
    value = attrgetter(name)
    return lambda messages: check([*map(value, messages)])


def _of_filled(name: str, check: Check) -> Check:
    """The check of the columns when one of them holds something; in most messages an optional column is empty."""
    value = attrgetter(name)
    return lambda messages: not any(map(value, messages)) or check([*map(value, messages)])


def _of_present(name: str, check: Check) -> Check:
    value = attrgetter(name)
    return lambda messages: check([value(message) for message in messages if message.HasField(name)])


def _of_elements(name: str, check: Check) -> Check:
    """The check of the elements of all lists, or of the keys of all maps."""
    value = attrgetter(name)
    return lambda messages: check([*chain.from_iterable(map(value, messages))])


def _of_map_values(name: str, check: Check) -> Check:
    value = attrgetter(name)
    return lambda messages: check([*chain.from_iterable(entries.values() for entries in map(value, messages))])


def _required(field: FieldDescriptor) -> Check:
    name, value = field.name, attrgetter(field.name)
    if field.has_presence:
        return lambda messages: all(message.HasField(name) for message in messages)
    return lambda messages: not any(map(rules.is_zero, map(value, messages)))


def _single(field: FieldDescriptor) -> Check | None:
    """The check of the values of a field that is no list."""
    own = methods.field_rules(field)
    if field.message_type is None:
        return _scalars(field, own)
    if any(name not in {"required", "ignore"} for name, _ in rules.flat(own)):
        raise UncoveredRuleError(f"{field.full_name}: rules of a message field")
    return _messages(field.message_type)


def _scalars(field: FieldDescriptor, own: validate_pb2.FieldRules) -> Check | None:
    if field.enum_type is not None and own.ByteSize():
        raise UncoveredRuleError(f"{field.full_name}: rules of an enum")
    return rules.scalar_check(own, field.type, presence=field.has_presence)


class _ListChecks:
    """The checks of a list or a map: of whole lists, of elements, and of a map's keys and values."""

    def __init__(self) -> None:
        self.whole: Check | None = None
        self.elements: Check | None = None
        self.keys: Check | None = None
        self.values: Check | None = None


@cache
def _list_rules(field: FieldDescriptor) -> _ListChecks:
    found = _ListChecks()
    own = methods.field_rules(field)
    entry = field.message_type if field.message_type is not None and field.message_type.GetOptions().map_entry else None
    if entry is not None:
        found.keys = _elements(entry.fields_by_name["key"], own.map.keys)
        found.values = _elements(entry.fields_by_name["value"], own.map.values)
    else:
        found.elements = _elements(field, own.repeated.items)
    found.whole = _whole(field, own)
    return found


def _whole(field: FieldDescriptor, own: validate_pb2.FieldRules) -> Check | None:
    checks = []
    for name, limit in rules.flat(own):
        if name in {"required", "ignore"} or name.startswith(("repeated.items.", "map.keys.", "map.values.")):
            continue
        row = RULES.get(name)
        if row is None or row.fast is None:
            raise UncoveredRuleError(f"{field.full_name}: {name}")
        checks.append(row.fast(limit))
    check = rules.all_of(checks)
    if check is None or own.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE:
        return check
    return lambda lists: check([values for values in lists if values])


def _elements(field: FieldDescriptor, own: validate_pb2.FieldRules) -> Check | None:
    """The check of the elements of a list, or of the keys or the values of a map."""
    if own.required:
        raise UncoveredRuleError(f"{field.full_name}: required elements")
    if field.message_type is None:
        return _scalars(field, own)
    if own.ByteSize():
        raise UncoveredRuleError(f"{field.full_name}: rules of message elements")
    check = _messages(field.message_type)
    return _serialized(field.message_type, check) if check is not None and _bytes_in_twin(field) else check


def _bytes_in_twin(field: FieldDescriptor) -> bool:
    """Whether the twin of the field's message holds the field's messages serialised."""
    holder = field.containing_type
    twin = twins.TWINS.get(GetMessageClass(holder)) if holder is not None else None
    return twin is not None and twin.DESCRIPTOR.fields_by_name[field.name].type == FieldDescriptor.TYPE_BYTES


def _serialized(descriptor: Descriptor, check: Check) -> Check:
    """The check of serialised messages of a type, cached by bytes."""
    kind = GetMessageClass(descriptor)

    def obeys(raw: bytes) -> bool:
        message = twins.read(kind, raw)
        return message is not None and check([message])

    cached = _cached(obeys)
    return lambda values: all(map(cached, values))


def _column(field: FieldDescriptor) -> Check:
    """The check of many columns, as bytes of float64 numbers."""
    least, most = _column_bytes(field)
    column_rules = rules.column_rules(field)
    alone = any(rule.name == "ascending" for rule in column_rules)

    def obeys(columns: Sequence[bytes]) -> bool:
        sizes = {*map(len, columns)}
        if min(sizes) < least or max(sizes) > most or any(size % NUMBER_BYTES for size in sizes):
            return False
        if alone:  # a column follows on another one
            return all(_hold(rule.holds, array(column)) for column in columns for rule in column_rules)
        numbers = array(b"".join(columns))
        for rule in column_rules:  # noqa: SIM110 -- all() over a generator takes half as long again
            if not _hold(rule.holds, numbers):
                return False
        return True

    return lambda columns: not columns or obeys(columns)


def _column_bytes(field: FieldDescriptor) -> tuple[float, float]:
    """A column's least and most bytes."""
    limits = dict(rules.flat(methods.field_rules(field)))
    least, most = limits.pop("repeated.min_items", 0), limits.pop("repeated.max_items", np.inf)
    if limits:
        raise UncoveredRuleError(f"{field.full_name}: {', '.join(limits)}")
    return least * NUMBER_BYTES, most * NUMBER_BYTES


def _panels(descriptor: Descriptor) -> Check:
    """The check of many panels' columns: equal lengths or absent, finite, prices in order, no negative volume."""
    fields = descriptor.fields_by_name
    sizes = {name: _column_bytes(fields[name]) for name in _PANEL_COLUMNS}
    least, most = sizes["close"]
    columns = {field.name: {rule.name for rule in rules.column_rules(field)} for field in descriptor.fields}
    expected = {**{name: {"finite"} for name in bars.PRICES}, "volume": {"finite", "non_negative"}}
    if {name: found for name, found in columns.items() if found} != expected:
        raise UncoveredRuleError(f"{descriptor.full_name}: rules of columns other than those of prices and volume")
    if any(sizes[name] != (0, most) for name in _PANEL_COLUMNS if name != "close"):
        raise UncoveredRuleError(f"{descriptor.full_name}: columns with limits of their own")
    finite, non_negative = COLUMN_RULES["finite"].holds, COLUMN_RULES["non_negative"].holds

    def obeys(panels: Sequence[Any]) -> bool:
        # Panels with columns of equal lengths are checked as a single array.
        alike: defaultdict[tuple[int, ...], list[bytes]] = defaultdict(list)
        for panel in panels:
            found = _columns_of(panel)
            alike[tuple(map(len, found))] += found
        return all(shape_obeys(lengths, b"".join(found)) for lengths, found in alike.items())

    def shape_obeys(lengths: tuple[int, ...], found: bytes) -> bool:
        size = lengths[_PANEL_COLUMNS.index("close")]
        if not least <= size <= most or size % NUMBER_BYTES or not {0, size}.issuperset(lengths):
            return False
        present = [name for name, length in zip(_PANEL_COLUMNS, lengths, strict=True) if length]
        whole = array(found)
        stacked = whole.reshape(-1, len(present), size // NUMBER_BYTES)
        columns = {name: stacked[:, place] for place, name in enumerate(present)}
        volume = columns.pop("volume", None)
        return _hold(finite, whole) and bars.ordered(columns) and (volume is None or _hold(non_negative, volume))

    return obeys


def _hold(rule: Callable[[Array], Any], numbers: Array) -> bool:
    return bool(np.count_nonzero(rule(numbers)) == numbers.size)
