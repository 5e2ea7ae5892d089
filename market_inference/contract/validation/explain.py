"""Checking a message by the contract's own rules.

Structural rules are protovalidate's; values in columns are checked over whole arrays with numpy, since a rule per
element costs three orders of magnitude more. Owns what a broken rule is called; the limits are the contract's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from protovalidate import Validator
from protovalidate import Violation as BrokenRule

from market_inference.contract import methods
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.generated import inference_pb2, options_pb2

_validator = Validator()
_OHLC = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An item that breaks a rule while the rest of its request stands: `list_name` is "series", "texts" or "panels"."""

    list_name: str
    index: int
    error: InvalidRequestError


class _Found(NamedTuple):
    """A violation, and the item that it belongs to if it belongs to one: `owner` is (list name, index)."""

    violation: Violation
    owner: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to check by hand in one message type."""

    items: tuple[tuple[str, tuple[tuple[str, options_pb2.ColumnRules], ...], bool], ...]
    panels: tuple[tuple[str, tuple[tuple[str, options_pb2.ColumnRules], ...]], ...]
    parts: tuple[tuple[str, "_Plan"], ...]


def check(message: Message) -> list[Refusal]:
    """Check a request. Items that stand alone and break a rule come back as refusals, with their content cleared.

    Raises InvalidRequestError when the request itself breaks a rule, or no item is left.
    """
    broken = _validator.collect_violations(message)
    found = [*map(_named, broken), *_columns(message, _plan(message.DESCRIPTOR), "")]
    return _sort_out(message, found) if found else []


def _sort_out(message: Message, found: list[_Found]) -> list[Refusal]:
    refused: dict[tuple[str, int], list[Violation]] = {}
    for violation, owner in found:
        if owner is None:
            raise InvalidRequestError([one.violation for one in found])
        refused.setdefault(owner, []).append(violation)
    if len(refused) == _count_items(message, _plan(message.DESCRIPTOR)):
        raise InvalidRequestError([one.violation for one in found])
    for name, index in refused:
        items = _list_of(message, name)
        if isinstance(items[index], str):
            items[index] = ""
        else:
            items[index].Clear()
    return [Refusal(name, index, InvalidRequestError(broken)) for (name, index), broken in refused.items()]


def _count_items(message: Message, plan: _Plan) -> int:
    """All items of the request, over the parts that it has."""
    own = sum(len(getattr(message, name)) for name, _, _ in plan.items)
    parts = (_count_items(getattr(message, name), part) for name, part in plan.parts if message.HasField(name))
    return own + sum(parts)


def _list_of(message: Message, name: str) -> Any:
    """The list of items, in the message or in the one part of it (Analyze) that has a list of this name."""
    if name in message.DESCRIPTOR.fields_by_name:
        return getattr(message, name)
    for part, plan in _plan(message.DESCRIPTOR).parts:
        if any(name == items[0] for items in plan.items):
            return getattr(getattr(message, part), name)
    raise KeyError(name)


@cache
def _plan(descriptor: Descriptor) -> _Plan:
    items, panels, parts = [], [], []
    for field in descriptor.fields:
        if field.GetOptions().Extensions[options_pb2.items]:
            panel = field.message_type is inference_pb2.Panel.DESCRIPTOR
            items.append((field.name, _column_fields(field), panel))
        elif field.GetOptions().Extensions[options_pb2.panel]:
            panels.append((field.name, _column_fields(field)))
        elif field.message_type is not None and not field.is_repeated:
            plan = _plan(field.message_type)
            if plan.items or plan.panels or plan.parts:
                parts.append((field.name, plan))
    return _Plan(tuple(items), tuple(panels), tuple(parts))


def _column_fields(items: FieldDescriptor) -> tuple[tuple[str, options_pb2.ColumnRules], ...]:
    if items.message_type is None:
        return ()
    columns = ((field.name, methods.column_rules(field)) for field in items.message_type.fields)
    return tuple((name, rules) for name, rules in columns if rules.ByteSize())


def _columns(message: Message, plan: _Plan, prefix: str) -> Iterator[_Found]:
    for name, columns, panel in plan.items:
        if not columns:
            continue
        for index, item in enumerate(getattr(message, name)):
            path, owner = f"{prefix}{name}[{index}]", (name, index)
            for column, rules in columns:
                for violation in _column(getattr(item, column), rules, f"{path}.{column}"):
                    yield _Found(violation, owner)
            if panel:
                for violation in _panel(item, path):
                    yield _Found(violation, owner)
    for name, columns in plan.panels:
        item, path = getattr(message, name), f"{prefix}{name}"
        for column, rules in columns:
            for violation in _column(getattr(item, column), rules, f"{path}.{column}"):
                yield _Found(violation, None)
        for violation in _panel(item, path):
            yield _Found(violation, None)
    for name, part in plan.parts:
        if message.HasField(name):
            yield from _columns(getattr(message, name), part, f"{prefix}{name}.")


def _column(values: object, rules: options_pb2.ColumnRules, path: str) -> Iterator[Violation]:
    array = np.asarray(values, dtype=np.float64)
    if rules.finite:
        finite = np.isfinite(array)
        if not finite.all():
            at = int(np.argmin(finite))
            yield Violation(f"{path}[{at}]", f"must be a finite number (got {array[at]})", "finite")
            return
    if rules.non_negative and array.size and array.min() < 0:
        at = int(np.argmax(array < 0))
        yield Violation(f"{path}[{at}]", f"must not be negative (got {array[at]:g})", "non_negative")


def _panel(panel: inference_pb2.Panel, path: str) -> Iterator[Violation]:
    """Rules between a panel's columns: equal lengths, low <= open/close <= high; absent columns are left out."""
    bars = len(panel.close)
    for column in (*_OHLC, "volume"):
        size = len(getattr(panel, column))
        if size not in (0, bars):
            yield Violation(
                f"{path}.{column}", f"must have as many values as close ({bars}, got {size})", "equal_length"
            )
            return
    present = {column: np.asarray(getattr(panel, column)) for column in _OHLC if len(getattr(panel, column))}
    for lower, upper in (("low", "open"), ("low", "close"), ("open", "high"), ("close", "high"), ("low", "high")):
        if lower in present and upper in present:
            above = present[lower] > present[upper]
            if above.any():
                at = int(np.argmax(above))
                yield Violation(
                    f"{path}.{lower}[{at}]",
                    f"{lower} must not exceed {upper} (got {present[lower][at]:g} > {present[upper][at]:g})",
                    "ohlc_order",
                )
                return


def _named(broken: BrokenRule) -> _Found:
    """protovalidate's finding in this service's words."""
    path, owner = "", None
    elements = broken.proto.field.elements if broken.proto.field else ()
    for element in elements:
        subscript = element.subscript
        path += ("." if path else "") + element.field_name
        if subscript is not None:
            key = subscript.value
            path += f"[{key}]" if isinstance(key, int) else f'["{key}"]'
            if owner is None and isinstance(key, int) and element.field_name in _item_list_names():
                owner = (element.field_name, key)
    rule = broken.proto.rule_id
    return _Found(Violation(path, _describe(rule, broken), rule), owner)


@cache
def _item_list_names() -> frozenset[str]:
    return frozenset(
        field.name
        for message in inference_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.GetOptions().Extensions[options_pb2.items]
    )


def _describe(rule: str, broken: BrokenRule) -> str:
    value, limit = broken.field_value, broken.rule_value
    match rule:
        case "repeated.min_items":
            return f"too short (min {limit}, got {len(value)})" if limit != 1 else "must not be empty (min 1, got 0)"
        case "repeated.max_items" | "map.max_pairs":
            return f"too long (max {limit}, got {len(value)})"
        case "string.max_len":
            return f"too long (max {limit} characters, got {len(value)})"
        case "string.min_len" | "string.pattern":
            return "must not be empty or blank"
        case "repeated.unique":
            return "must not repeat a value"
        case _:
            text = broken.proto.message
            return f"{text} (got {value})" if isinstance(value, int | float) else text
