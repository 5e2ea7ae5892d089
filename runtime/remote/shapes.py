"""Answers of an API that have another form than its documents say.

Owns the translation of such an answer into a failure of the API, and the reading of amounts of money.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtime.remote.http import TransientError


@contextmanager
def understood(whose: str) -> Iterator[None]:
    """Around the reading of an answer; a decorator, too. Raises TransientError where the reading fails."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise TransientError(f"{whose} answered in another form: {type(error).__name__}: {error}"[:300]) from error


def usd(value: object) -> float:
    """A price or a bill. Raises TypeError, ValueError: a negative one would allow further expenses."""
    found = usd_or_credit(value)
    if found < 0.0:
        raise ValueError(f"{found} is no price and no bill")
    return found


def usd_or_credit(value: object) -> float:
    """A line of a bill; a credit is negative. Raises TypeError, ValueError: NaN would allow every further expense."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{type(value).__name__} is no amount of money")
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{found} is no amount of money")
    return found


def record(value: object) -> dict[str, Any]:
    """Raises TypeError for another value: null is no answer."""
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} is no object")
    return value


def text(value: object) -> str:
    """Raises TypeError for another value."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no text")
    return value
