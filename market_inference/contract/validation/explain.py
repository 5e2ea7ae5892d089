"""The explaining check: the violations of a request, with the field's path, the limit and the value.

Owns the search for violations, and the decision between refusing the whole request and a single item.
protovalidate checks structural rules. numpy checks the rules of columns and panels over whole arrays, since a rule per
number would cost a thousand times as much. The words of a violation are in rules.py, the limits in the contract.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from protovalidate import Violation as BrokenRule

from market_inference.contract import methods
from market_inference.contract.encoding.twins import TWINS, Array, array
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.generated import inference_pb2, options_pb2
from market_inference.contract.validation import bars, rules
from market_inference.contract.validation.native import VALIDATOR

MOST_DESCRIBED: Final = 64
"""Violations of a request that are described; further violations are counted. An error's details hold about as many."""
_NOT_DESCRIBED: Final = f"breaks a rule; only the first {MOST_DESCRIBED} violations of a request are described"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused item of a request whose other items are answered: `list_name` is "series", "texts" or "panels"."""

    list_name: str
    index: int
    error: InvalidRequestError


class _Item(NamedTuple):
    """The place of an item in its request."""

    list_name: str
    place: int


class _Found(NamedTuple):
    """A violation and its item; None for a violation outside of all items."""

    violation: Violation
    item: _Item | None


class _ColumnsOf(NamedTuple):
    """A field of messages with columns: the names and rules of the columns, and whether the messages are panels."""

    name: str
    columns: tuple[tuple[str, tuple[rules.ColumnRule, ...]], ...]
    panel: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """The fields of a message type that protovalidate does not check: items, panels, and messages with such fields."""

    items: tuple[_ColumnsOf, ...]
    panels: tuple[_ColumnsOf, ...]
    parts: tuple[tuple[str, "_Plan"], ...]
    at_least_one: tuple[str, ...]


def prepare(kinds: Iterable[type[Message]]) -> None:
    """Compile the rules of message types now: the first request with a mistake would wait for tens of milliseconds."""
    for kind in kinds:
        VALIDATOR.collect_violations(kind())


def check(message: Message) -> list[Refusal]:
    """Check a request. The refused items are returned, and their content but a valid symbol is cleared in `message`.

    The time is bounded by the number of items and bytes: beyond MOST_DESCRIBED, violations are counted only. Raises
    InvalidRequestError for a violation outside of all items, and when no item is left.
    """
    plan = _plan(message.DESCRIPTOR)
    broken = VALIDATOR.collect_violations(message)
    found = [_named(one, message, place) for place, one in enumerate(broken[:MOST_DESCRIBED])]
    if len(broken) > MOST_DESCRIBED:
        if any(item is None for _, item in found):
            raise _error(found, len(broken))
        # Without a violation outside of the items, the request stands if an item is left.
        found += [_named(one, message, place) for place, one in enumerate(broken[MOST_DESCRIBED:], MOST_DESCRIBED)]
    found += _by_hand(message, plan, "", {item for _, item in found})
    return _refusals(message, plan, found) if found else []


def _refusals(message: Message, plan: _Plan, found: Sequence[_Found]) -> list[Refusal]:
    refused: dict[_Item, list[Violation]] = {}
    for violation, item in found:
        if item is None:
            raise _error(found, len(found))
        refused.setdefault(item, []).append(violation)
    if len(refused) == _count_items(message, plan):
        raise _error(found, len(found))
    for (name, place), mistakes in refused.items():
        items = _list_of(message, name)
        if isinstance(items[place], str):
            items[place] = ""
        else:
            named = not any(one.field.endswith(".symbol") for one in mistakes)
            symbol = getattr(items[place], "symbol", "") if named else ""
            items[place].Clear()
            if symbol:
                items[place].symbol = symbol
    return [Refusal(*item, InvalidRequestError(broken)) for item, broken in refused.items()]


def _error(found: Sequence[_Found], count: int) -> InvalidRequestError:
    described = [one.violation for one in found[:MOST_DESCRIBED]]
    return InvalidRequestError(described, more=count - len(described))


def _count_items(message: Message, plan: _Plan) -> int:
    """The number of items of a request, the items of its parts included."""
    own = sum(len(getattr(message, items.name)) for items in plan.items)
    parts = (_count_items(getattr(message, name), part) for name, part in plan.parts if message.HasField(name))
    return own + sum(parts)


def _list_of(message: Message, name: str) -> Any:
    """The list of items named `name`, of the message or of the part (Analyze) with a list of the name."""
    if name in message.DESCRIPTOR.fields_by_name:
        return getattr(message, name)
    for part, plan in _plan(message.DESCRIPTOR).parts:
        if any(name == items.name for items in plan.items):
            return getattr(getattr(message, part), name)
    raise KeyError(name)


@cache
def _plan(descriptor: Descriptor) -> _Plan:
    items, panels, parts = [], [], []
    for field in descriptor.fields:
        if field.GetOptions().Extensions[options_pb2.items]:
            items.append(_columns_of(field))
        elif field.GetOptions().Extensions[options_pb2.panel]:
            panels.append(_columns_of(field))
        elif field.message_type is not None and not field.is_repeated:
            plan = _plan(field.message_type)
            if plan.items or plan.panels or plan.parts:
                parts.append((field.name, plan))
    return _Plan(tuple(items), tuple(panels), tuple(parts), rules.at_least_one(descriptor))


def _columns_of(field: FieldDescriptor) -> _ColumnsOf:
    inside = field.message_type.fields if field.message_type is not None else ()
    columns = tuple((column.name, rules.column_rules(column)) for column in inside)
    panel = field.message_type is inference_pb2.Panel.DESCRIPTOR
    return _ColumnsOf(field.name, tuple((name, found) for name, found in columns if found), panel)


def _by_hand(message: Message, plan: _Plan, prefix: str, refused: Set[_Item | None]) -> Iterator[_Found]:
    """The violations of the rules that protovalidate does not check. Items in `refused` are left out."""
    if plan.at_least_one and not any(map(message.HasField, plan.at_least_one)):
        yield _Found(Violation(prefix.rstrip("."), rules.at_least_one_words(plan.at_least_one), "at_least_one"), None)
    for items in plan.items:
        for index, item in enumerate(getattr(message, items.name) if items.columns else ()):
            place = _Item(items.name, index)
            if place not in refused:
                for violation in _in_columns(item, items, f"{prefix}{items.name}[{index}]"):
                    yield _Found(violation, place)
    for panel in plan.panels:
        for violation in _in_columns(getattr(message, panel.name), panel, f"{prefix}{panel.name}"):
            yield _Found(violation, None)
    for name, part in plan.parts:
        if message.HasField(name):
            yield from _by_hand(getattr(message, name), part, f"{prefix}{name}.", refused)


def _in_columns(item: Message, shape: _ColumnsOf, path: str) -> Iterator[Violation]:
    # The twin gives a column as an array. A repeated field would be converted number by number.
    twin = TWINS[type(item)].FromString(item.SerializeToString())
    columns = {name: array(getattr(twin, name)) for name, _ in shape.columns}
    for name, column_rules in shape.columns:
        yield from _in_column(columns[name], column_rules, f"{path}.{name}")
    if shape.panel:
        yield from _in_panel(columns, path)


def _in_column(column: Array, column_rules: Sequence[rules.ColumnRule], path: str) -> Iterator[Violation]:
    for rule in column_rules:
        holds = rule.holds(column)
        if not holds.all():
            at = int(np.argmin(holds))
            yield Violation(f"{path}[{at}]", rule.words(float(column[at])), rule.name)
            return


def _in_panel(columns: dict[str, Array], path: str) -> Iterator[Violation]:
    """The rules between a panel's columns: equal lengths, and the order of prices. Absent columns take no part."""
    size = columns["close"].size
    for name, column in columns.items():
        if column.size not in {0, size}:
            text = f"must have as many values as close ({size}, got {column.size})"
            yield Violation(f"{path}.{name}", text, "equal_length")
            return
    disorder = bars.first_disorder({name: columns[name] for name in bars.PRICES if columns[name].size})
    if disorder is not None:
        yield Violation(f"{path}.{disorder.lower}[{disorder.bar}]", disorder.description, bars.REASON)


def _named(broken: BrokenRule, message: Message, place: int) -> _Found:
    """protovalidate's violation number `place`, with its path and, up to MOST_DESCRIBED, a description."""
    # Value and limit are looked up here: protovalidate's field_value and rule_value take 20 microseconds.
    proto = broken.proto
    path, item, field = "", None, None
    value: Any = message
    for element in proto.field.elements if proto.field else ():
        name, subscript = element.field_name, element.subscript
        path += f".{name}" if path else name
        field = value.DESCRIPTOR.fields_by_name[name]
        value = getattr(value, name)
        if subscript is not None:
            key: Any = subscript.value
            path += f"[{key}]" if isinstance(key, int) else f'["{rules.shown(key)}"]'
            value = key if proto.for_key and isinstance(value, Mapping) else value[key]
            if item is None and isinstance(key, int) and field.GetOptions().Extensions[options_pb2.items]:
                item = _Item(name, key)
    if place >= MOST_DESCRIBED:
        return _Found(Violation(path, _NOT_DESCRIBED, proto.rule_id), item)
    limit: Any = methods.field_rules(field) if field is not None else None
    for element in proto.rule.elements if proto.rule and limit is not None else ():
        limit = getattr(limit, element.field_name)
    return _Found(Violation(path, rules.words(proto.rule_id, field, value, limit, proto.message), proto.rule_id), item)
