"""A cache of results for short arguments.

Callers repeat the small parts of their requests: specs of indicators, options without series. A long argument is
computed every time, so that the number of entries bounds the bytes of the cache.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, TypeVar

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")
_Function = Callable[[_Argument], _Result]


def short_cache(
    entries: int, most_bytes: int, size: Callable[[Any], int]
) -> Callable[[_Function[_Argument, _Result]], _Function[_Argument, _Result]]:
    """Keep the results of a function of one argument, for arguments of at most `most_bytes` by `size`."""

    def decorate(function: _Function[_Argument, _Result]) -> _Function[_Argument, _Result]:
        cached = lru_cache(maxsize=entries)(function)

        @wraps(function)
        def call(argument: _Argument) -> _Result:
            return cached(argument) if size(argument) <= most_bytes else function(argument)

        return call

    return decorate


def bytes_of_all(parts: Sequence[bytes]) -> int:
    """The bytes of all parts together."""
    return sum(map(len, parts))
