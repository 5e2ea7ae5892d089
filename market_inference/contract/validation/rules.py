"""The table of field rules: a row per rule, with the fast check of many values and the words of a violation.

Owns the rows. fast.py composes the check of a message type from the rows; explain.py takes the words of violations from
the rows. A rule of scalar values without a row is checked by protovalidate (`native`), at two microseconds a call, and
described by protovalidate. The limits are options in the .proto files.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Final

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from numpy.typing import NDArray

from market_inference.contract import methods
from market_inference.contract.generated import options_pb2, validate_pb2
from market_inference.contract.validation.native import Check, native

SHOWN_CHARACTERS: Final = 64
"""Characters of a caller's string in an error message."""


def shown(value: str, limit: int = SHOWN_CHARACTERS) -> str:
    """A caller's string for an error message: cut to `limit` characters."""
    return value if len(value) <= limit else f"{value[:limit]}…"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule by protovalidate's name for it, without the field.

    `fast` makes the check of many values from the rule's limit. `words` describe a violation from the value and the
    limit. Where one of them is missing, protovalidate's check or protovalidate's text takes its place.
    """

    name: str
    fast: Callable[[Any], Check] | None = None
    words: Callable[[Any, Any], str] | None = None


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """A rule of a column of numbers, an option of options.proto. `holds` gives a boolean per number."""

    name: str
    holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]]
    words: Callable[[float], str]


def _at_least(length: int) -> Check:
    return lambda values: not values or min(map(len, values)) >= length


def _at_most(length: int) -> Check:
    return lambda values: not values or max(map(len, values)) <= length


def _exactly(length: int) -> Check:
    return lambda values: all(len(value) == length for value in values)


def _one_of(allowed: Iterable[Any]) -> Check:
    known = frozenset(allowed)
    return lambda values: known.issuperset(values)


def _none_of(forbidden: Iterable[Any]) -> Check:
    known = frozenset(forbidden)
    return lambda values: known.isdisjoint(values)


def _starts(prefix: str) -> Check:
    return lambda values: all(value.startswith(prefix) for value in values)


def _ends(suffix: str) -> Check:
    return lambda values: all(value.endswith(suffix) for value in values)


def _contains(part: str) -> Check:
    return lambda values: all(part in value for value in values)


def _lacks(part: str) -> Check:
    return lambda values: not any(part in value for value in values)


def _unique(_: bool) -> Check:
    return lambda lists: all(len({*values}) == len(values) for values in lists)


def _too_short(value: Any, limit: Any) -> str:
    return f"too short (min {limit}, got {len(value)})" if limit != 1 else "must not be empty (min 1, got 0)"


def _too_long(value: Any, limit: Any) -> str:
    return f"too long (max {limit}, got {len(value)})"


def _short_text(value: Any, limit: Any) -> str:
    return f"too short (min {limit} characters, got {len(value)})" if limit != 1 else "must not be empty"


def _long_text(value: Any, limit: Any) -> str:
    return f"too long (max {limit} characters, got {len(value)})"


def _mismatch(value: Any, pattern: Any) -> str:
    return f"must match {shown(pattern, 2 * SHOWN_CHARACTERS)} (got {quoted(value)})"


def quoted(value: str) -> str:
    """A caller's string for an error message: cut, between quotes, control characters escaped."""
    return repr(shown(value))


def _ascending(column: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of whole numbers of 64 bits, read as the numbers of any other column."""
    numbers = column.view(np.int64)
    return np.concatenate([np.ones(min(1, numbers.size), np.bool_), numbers[1:] > numbers[:-1]])


_ROWS: Final = (
    Rule("repeated.min_items", _at_least, _too_short),
    Rule("repeated.max_items", _at_most, _too_long),
    Rule("repeated.unique", _unique, lambda value, limit: "must not repeat a value"),
    Rule("map.min_pairs", _at_least, _too_short),
    Rule("map.max_pairs", _at_most, _too_long),
    Rule("string.min_len", _at_least, _short_text),
    Rule("string.max_len", _at_most, _long_text),
    Rule("string.len", _exactly, lambda value, limit: f"must be {limit} characters long (got {len(value)})"),
    Rule("string.const", lambda value: _one_of([value])),
    Rule("string.in", _one_of),
    Rule("string.not_in", _none_of),
    Rule("string.prefix", _starts),
    Rule("string.suffix", _ends),
    Rule("string.contains", _contains),
    Rule("string.not_contains", _lacks),
    Rule("string.pattern", words=_mismatch),
    Rule("required", words=lambda value, limit: "must be set"),
)
RULES: Final[Mapping[str, Rule]] = {row.name: row for row in _ROWS}

COLUMN_RULES: Final[Mapping[str, ColumnRule]] = {
    row.name: row
    for row in (
        ColumnRule("finite", np.isfinite, lambda value: f"must be a finite number (got {value})"),
        ColumnRule("non_negative", lambda values: values >= 0, lambda value: f"must not be negative (got {value:g})"),
        ColumnRule("ascending", _ascending, lambda _: "must be after the one before"),
        ColumnRule("no_infinity", lambda values: ~np.isinf(values), lambda _: "must not be infinite"),
    )
}
"""The options of ColumnRules by their names, in the order in which they are checked."""


def column_rules(field: FieldDescriptor) -> tuple[ColumnRule, ...]:
    """The rules of a column, in the order of COLUMN_RULES. Raises KeyError for an option without a row."""
    names = {name for name, _ in flat(methods.column_rules(field))}
    return tuple(COLUMN_RULES[name] for name in sorted(names, key=[*COLUMN_RULES].index)) if names else ()


def at_least_one(descriptor: Descriptor) -> tuple[str, ...]:
    """The fields of a message, of which at least one must be set; empty for a message without the option."""
    asked = descriptor.GetOptions().Extensions[options_pb2.at_least_one]
    return tuple(field.name for field in descriptor.fields) if asked else ()


def at_least_one_words(names: Sequence[str]) -> str:
    return f"at least one of {', '.join(names[:-1])} and {names[-1]} is needed"


def words(name: str, field: FieldDescriptor | None, value: Any, limit: Any, text: str) -> str:
    """The description of a violation of the rule `name`. `text` is protovalidate's, for a rule without words."""
    if name == "string.pattern" and field is not None:
        meaning: str = field.GetOptions().Extensions[options_pb2.pattern_message]
        if meaning:
            return meaning
    row = RULES.get(name)
    if row is not None and row.words is not None:
        return row.words(value, limit)
    if isinstance(value, str):
        return f"{text} (got {quoted(value)})" if value else text
    return f"{text} (got {value})" if isinstance(value, int | float) else text


def flat(rules: Message, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every rule that is set, by dotted name, such as "repeated.items.string.max_len". Examples are left out."""
    for field, value in rules.ListFields():
        if isinstance(value, Message):
            yield from flat(value, f"{prefix}{field.name}.")
        elif field.name != "example":
            yield f"{prefix}{field.name}", value


def scalar_check(rules: validate_pb2.FieldRules, kind: int, *, presence: bool = False) -> Check | None:
    """The check of scalar values of the protobuf type `kind` (FieldDescriptor.TYPE_*) against a field's rules.

    `presence`: a zero is checked even with IGNORE_IF_ZERO_VALUE, as protovalidate does for fields with presence.
    `required` is left to the caller. None for a field without rules.
    """
    if rules.ignore == validate_pb2.IGNORE_ALWAYS:
        return None
    names = {name: limit for name, limit in flat(rules) if name not in {"required", "ignore"}}
    if not names:
        return None
    checks = _bounds(names)
    while checks is not None and names:
        name, limit = names.popitem()
        row = RULES.get(name)
        checks = [*checks, row.fast(limit)] if row is not None and row.fast is not None else None
    check = all_of(checks) if checks is not None else native(rules, kind)
    if check is None or presence or rules.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE:
        return check
    return lambda values: check([value for value in values if not is_zero(value)])


def is_zero(value: Any) -> bool:
    """Whether a value is the value of an unset field. Protobuf writes -0.0, so -0.0 is not zero."""
    return not value and not (isinstance(value, float) and math.copysign(1.0, value) < 0)


def all_of(checks: Sequence[Check]) -> Check | None:
    """A check that runs the checks in turn; None for no checks."""
    if len(checks) < 2:
        return checks[0] if checks else None
    first, rest = checks[0], all_of(checks[1:])
    return lambda values: first(values) and rest(values)  # type: ignore[misc]  # there is a rest


_BOUNDS: Final[Mapping[str, Callable[[float, float], bool]]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


def _bounds(rules: dict[str, Any]) -> list[Check] | None:
    """The checks of a number's bounds, taken out of `rules`.

    None for bounds that exclude a range (`lt: 1, gt: 5` allows numbers below 1 and above 5): protovalidate's.
    """
    found = {name.rpartition(".")[2]: name for name in rules if name.rpartition(".")[2] in _BOUNDS}
    limits = {bound: rules.pop(name) for bound, name in found.items()}
    lowest = max((limits[bound] for bound in ("gt", "gte") if bound in limits), default=-math.inf)
    highest = min((limits[bound] for bound in ("lt", "lte") if bound in limits), default=math.inf)
    if limits and lowest >= highest:
        return None
    return [_compared(_BOUNDS[bound], limit) for bound, limit in limits.items()]


def _compared(compare: Callable[[float, float], bool], limit: float) -> Check:
    return lambda values: all(compare(value, limit) for value in values)
