"""Waiting for an event after an answer: a log line, a metric, a gauge.

A service answers first and counts afterwards. A test must not read the count right after the answer.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")

SECONDS = 60.0
_POLL_SECONDS = 0.01


def eventually(read: Callable[[], Value], accept: Callable[[Value], Any] = bool, seconds: float = SECONDS) -> Value:
    """Return the first value of `read()` that `accept` accepts. Fails after `seconds` and shows the last value."""
    deadline = time.monotonic() + seconds
    while not accept(value := read()):
        _fail_after(deadline, seconds, value)
        time.sleep(_POLL_SECONDS)
    return value


async def eventually_async(
    read: Callable[[], Value], accept: Callable[[Value], Any] = bool, seconds: float = SECONDS
) -> Value:
    """As eventually(), on an event loop, which runs between two reads."""
    deadline = time.monotonic() + seconds
    while not accept(value := read()):
        _fail_after(deadline, seconds, value)
        await asyncio.sleep(_POLL_SECONDS)
    return value


def _fail_after(deadline: float, seconds: float, value: object) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {seconds:g} s; the last value was {value!r}")
