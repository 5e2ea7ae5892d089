"""Misspelt keywords of the clients' methods.

Owns the TypeError that names the public method and the nearest keyword; Python's own would name an inner function.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from market_inference.client.attempt import CallOptions

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS = CallOptions.__annotations__.keys()


def known(method: Callable[..., Any], options: CallOptions) -> CallOptions:
    """The options, if all are keywords of every call. Raises TypeError in the name of the public method."""
    if options and not options.keys() <= _OPTIONS:
        raise _unexpected(method, next(name for name in options if name not in _OPTIONS), _OPTIONS)
    return options


def suggesting(method: Callable[P, T]) -> Callable[P, T]:
    """A method without CallOptions, with the same TypeError."""
    names = _names(method)

    @wraps(method)
    def run(*args: P.args, **keywords: P.kwargs) -> T:
        try:
            return method(*args, **keywords)
        except TypeError:
            unknown = next((name for name in keywords if name not in names), None)
            if unknown is None:
                raise
            raise _unexpected(method, unknown) from None

    return run


def _names(method: Callable[..., Any]) -> set[str]:
    """The method's keywords but `self` and the collected options."""
    found = inspect.signature(method).parameters
    return {name for name, one in found.items() if one.kind is not one.VAR_KEYWORD and name != "self"}


def _unexpected(method: Callable[..., Any], name: str, others: Iterable[str] = ()) -> TypeError:
    names = sorted(_names(method) | {*others})
    near = difflib.get_close_matches(name.lower(), names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
    return TypeError(f"{method.__qualname__}() got an unexpected keyword argument {name!r}; {hint}")
