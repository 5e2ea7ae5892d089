"""Scalar arguments of calls, checked where they enter.

Owns the conversion of one argument to the contract's form, and the refusal of a value without such a form. Upper limits
are the service's to check. Every function raises ArgumentError.
"""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, SupportsIndex

import numpy as np

from market_inference.contract import metadata
from market_inference.errors import ArgumentError

_SHOWN = 60
# Beyond ten years gRPC's timers overflow; as a limit it is none.
_ENDLESS_SECONDS = 315_360_000.0


def shown(value: object) -> str:
    """The value as an error may show it: short, on one line."""
    try:
        text = repr(value.item() if isinstance(value, np.generic) else value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def refuse(field: str, expected: str, value: object) -> ArgumentError:
    """The error that names the argument, what is expected, and the value."""
    return ArgumentError(field, f"expected {expected}, got {shown(value)}")


def whole(value: object, field: str, least: int = 0) -> int:
    """A whole number from `least`: 10, numpy's integers and 10.0."""
    if type(value) is int and least <= value < 1 << 32:
        return value
    expected = f"a whole number from {least}"
    if isinstance(value, bool | np.bool_):
        raise refuse(field, expected, value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    if not isinstance(value, SupportsIndex):
        raise refuse(field, expected, value)
    found = int(value.__index__())
    if not least <= found < 1 << 32:
        raise refuse(field, expected, value)
    return found


def number(value: object, field: str, expected: str = "a number") -> float:
    """A finite number, also one written as text ("20")."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise refuse(field, expected, value) from None
    if (
        isinstance(value, bool | np.bool_)
        or not isinstance(value, Real | np.number)
        or not math.isfinite(_float(value))
    ):
        raise refuse(field, expected, value)
    return float(value)


def _float(value: Any) -> float:
    """The number, infinite beyond float64."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def seconds(value: object, field: str) -> float:
    """Seconds above zero; math.inf where there is no limit."""
    expected = "seconds above 0 (math.inf for no limit)"
    if isinstance(value, str | bool | np.bool_) or not isinstance(value, Real | np.number):
        raise refuse(field, expected, value)
    found = _float(value)
    if not found > 0:
        raise refuse(field, expected, value)
    return found if found < _ENDLESS_SECONDS else math.inf


def text(value: object, field: str) -> str:
    """A text that UTF-8 can carry."""
    if not isinstance(value, str):
        raise refuse(field, "text", value)
    if value.isascii():
        return str(value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            field, f"character {error.start} is {value[error.start]!r}, half of a surrogate pair, which is no character"
        ) from None
    return str(value)


def one_of(value: object, field: str, known: Iterable[str]) -> str:
    """One of the known words."""
    known = tuple(known)
    if not isinstance(value, str) or value not in known:
        raise refuse(field, " or ".join(repr(word) for word in known), value)
    return value


def levels(value: Any, field: str = "quantiles") -> list[float]:
    """Quantile levels: a number, or several; None for none."""
    if value is None:
        return []
    if isinstance(value, Real | np.number) and not isinstance(value, bool | np.bool_):
        value = [value]
    if type(value) in (list, tuple) and all(type(one) is float and 0.0 < one < 1.0 for one in value):
        return list(value)  # the usual case, at a fifth of the cost
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise refuse(field, "levels between 0 and 1, such as [0.1, 0.5, 0.9]", value)
    return [_share(one, f"{field}[{at}]") for at, one in enumerate(value)]


def _share(value: object, field: str) -> float:
    expected = "a level between 0 and 1"
    if isinstance(value, str):
        raise refuse(field, expected, value)
    found = number(value, field, expected)
    if not 0 < found < 1:
        percent = f"; for {found:g}% write {found / 100:g}" if 1 < found < 100 else ""
        raise ArgumentError(field, f"expected {expected}, both excluded, such as 0.01 or 0.99, got {found:g}{percent}")
    return found


def central_levels(shares: object) -> list[float]:
    """The levels of central intervals: 0.95 gives 0.025 and 0.975; None gives none."""
    return [round((1 + sign * share) / 2, 12) for share in levels(shares, "interval") for sign in (-1, 1)]


def request_id(value: object) -> str:
    """A request id that metadata can carry and the service keeps."""
    if not isinstance(value, str) or metadata.request_id(value) != value:
        raise refuse("request_id", "1 to 128 characters out of A-Z a-z 0-9 . _ : / + = @ -", value)
    return value


def traceparent(value: object) -> str:
    """W3C Trace Context, or "" for none; the service ignores other text that metadata can carry, as W3C asks."""
    if not (isinstance(value, str) and value.isascii() and (value.isprintable())):
        raise refuse("traceparent", "W3C Trace Context such as 00-<32 hex digits>-<16 hex digits>-01", value)
    return value


def params(value: Any, field: str) -> dict[str, float]:
    """Parameters of an indicator: names to numbers; numbers may be written as text."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refuse(field, 'parameters by name, such as {"timeperiod": 14}', value)
    return {text(name, field): number(one, f"{field}.{name}") for name, one in value.items()}
