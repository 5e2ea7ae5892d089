"""The states of recursive forms as bytes, so that another process can continue them.

Owns the layout: a digest of the calls, then float64 numbers in the order of the forms. The start of a form is the
pattern of the form's states: a whole number, a real number, a number that may be absent (None), or a list of real
numbers (the empty tuple).
"""

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

from models.indicators.incremental_forms import State
from models.indicators.program import Program

# To be raised when a form's state gets another form or meaning; test_incremental_state.py compares the states.
_VERSION = 1
_DIGEST_BYTES = 8
_MOST = 1 << 53


def pack(program: Program, starts: Sequence[State], states: Sequence[State]) -> bytes:
    """The states of a program's recursive forms."""
    return _digest(program) + array("d", _numbers(tuple(starts), tuple(states))).tobytes()


def unpack(program: Program, starts: Sequence[State], packed: bytes) -> list[State]:
    """The states that pack() has written. Raises ValueError for bytes of other calls, or of no states."""
    if packed[:_DIGEST_BYTES] != _digest(program):
        raise ValueError("is of other indicators, or of another version of the service")
    if len(packed) % 8:
        raise ValueError("is cut")
    numbers = iter(array("d", packed[_DIGEST_BYTES:]))
    try:
        states = _state(tuple(starts), numbers)
    except StopIteration:
        raise ValueError("is cut") from None
    if next(numbers, None) is not None:
        raise ValueError("is too long")
    return list(states)


def _digest(program: Program) -> bytes:
    calls = [(call.function.name, call.values) for call in program.calls]
    return blake2b(repr((_VERSION, calls)).encode(), digest_size=_DIGEST_BYTES).digest()


def _numbers(pattern: Any, state: Any) -> Iterator[float]:
    if pattern == ():
        yield len(state)
        yield from state
    elif isinstance(pattern, tuple):
        for one, value in zip(pattern, state, strict=True):
            yield from _numbers(one, value)
    elif pattern is None:
        yield from (0.0, 0.0) if state is None else (1.0, state)
    else:
        yield state


def _state(pattern: Any, numbers: Iterator[float]) -> Any:
    if pattern == ():
        size = _whole(numbers)
        values = tuple(islice(numbers, max(0, size)))
        if len(values) != size:
            raise ValueError("is cut")
        return values
    if isinstance(pattern, tuple):
        # A list: StopIteration in a generator would become RuntimeError.
        return tuple([_state(one, numbers) for one in pattern])
    if pattern is None:
        is_set, value = next(numbers), next(numbers)
        return value if is_set else None
    return _whole(numbers) if isinstance(pattern, int) else next(numbers)


def _whole(numbers: Iterator[float]) -> int:
    value = next(numbers)
    if not (abs(value) < _MOST and value.is_integer()):
        raise ValueError("has a count that is no whole number")
    return int(value)
