"""Calls of foreign code: models, tokenisers, loaders.

Owns one rule: an error of foreign code ends the call, and no thread, task or process. A panic of a library in Rust
(tokenizers, safetensors), SystemExit, KeyboardInterrupt and CancelledError are no Exceptions: an `except Exception`
lets such errors pass. An event loop ends at SystemExit and KeyboardInterrupt, and takes CancelledError for the end of a
caller. A future refuses StopIteration.
"""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol


class EscapedError(Exception):
    """Foreign code raised an error that could end more than the call: the cause. The text names the cause's type."""


class _Contained:
    """A context of foreign code, without an await. Raises EscapedError for an error that could end more."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (isinstance(error, StopIteration) or not isinstance(error, Exception)):
            raise EscapedError(type(error).__name__) from error


contained: Final = _Contained()


class _Future(Protocol):
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Exception, /) -> None: ...


def outcome_for(future: _Future, function: Callable[[], Any]) -> Callable[[], None]:
    """Call foreign code; the returned function gives the future the result or the error."""
    try:
        with contained:
            return partial(future.set_result, function())
    except Exception as error:  # noqa: BLE001 -- raised by the caller, who awaits the future
        return partial(future.set_exception, error)
