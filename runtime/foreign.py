"""Calls of foreign code: models, tokenisers, loaders.

Owns one rule: what foreign code raises ends its own call, and no thread, task or process. A panic of a library in Rust
(tokenizers, safetensors), SystemExit, KeyboardInterrupt and CancelledError are no Exceptions: they pass an `except
Exception`, an event loop ends at the first two, and takes the last for the end of a caller. A future refuses
StopIteration.
"""

from types import TracebackType
from typing import Final


class EscapedError(Exception):
    """Foreign code raised something that is not for its caller's ears: the cause, whose type the text names."""


class _Contained:
    """A context of foreign code, without an await. Raises EscapedError instead of what could end more than the call."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (isinstance(error, StopIteration) or not isinstance(error, Exception)):
            raise EscapedError(type(error).__name__) from error


contained: Final = _Contained()
