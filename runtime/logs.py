"""Logs as JSON lines on stderr.

Owns the form of a line: `time`, `level`, `logger`, `event`, then the fields given in `extra={"fields": {...}}`. Callers
pass ids, codes, sizes and timings, never keys, tokens, texts or series.

Writing a line never blocks. Lines that stderr does not accept, such as those for a pipe without a reader or for a full
disk, wait in a buffer; once the buffer is full new lines are dropped, and a later line says how many.
"""

import asyncio
import logging
import os
import select
import stat
import sys
import time
import warnings
from datetime import UTC, datetime
from functools import cache, lru_cache
from threading import RLock
from typing import Final

import orjson

from runtime import stdio

_BUFFER_BYTES: Final = 1 << 20
"""Lines that wait for stderr: some thousand."""
_PIPE_BYTES: Final = 4096
"""Bytes that a pipe accepts at once if poll() says that the pipe is writable (pipe(7), PIPE_BUF)."""
_RETRY_SECONDS: Final = 0.1
_CLOSE_SECONDS: Final = 1.0
_REPEAT_SECONDS: Final = 60.0
"""For this time after a line of a library that repeats its lines, an equal line is dropped."""


class _Writer:
    """Writes lines to a file descriptor without blocking. Safe from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._lock = RLock()
        self._waiting = bytearray()
        self._dropped = 0
        mode = os.fstat(descriptor).st_mode
        reopened = _reopened(descriptor, mode)
        self._descriptor = descriptor if reopened is None else reopened
        self._is_file = stat.S_ISREG(mode)
        self._may_block = reopened is None and not self._is_file

    def write(self, line: bytes) -> None:
        """Add a line to the buffer, or drop the line if the buffer is full."""
        with self._lock:
            if len(self._waiting) + len(line) > _BUFFER_BYTES:
                self._dropped += 1
            else:
                self._waiting += line

    def flush(self) -> bool:
        """Write as much as stderr accepts now; returns whether no line waits any more."""
        with self._lock:
            try:
                while self._waiting and self._write_some():
                    pass
            except OSError:
                if not self._is_file:  # No reader will ever come: a closed pipe. A disk has room again some day.
                    self._waiting.clear()
            if self._dropped and not self._waiting:
                dropped, self._dropped = self._dropped, 0
                head = _head(int(time.time() * 1000), logging.WARNING, __name__, "log lines dropped")
                self._waiting += _dumps(head | {"count": dropped}) + b"\n"
                return self.flush()
            return not self._waiting

    def close(self) -> None:
        """Write waiting lines, as far as stderr accepts them within a second."""
        until = time.monotonic() + _CLOSE_SECONDS
        while not self.flush() and time.monotonic() < until:
            time.sleep(0.01)

    def _write_some(self) -> bool:
        """Write once; whether anything was written."""
        size = len(self._waiting)
        if self._may_block:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if not poll.poll(0):
                return False
            size = _PIPE_BYTES
        try:
            written = os.write(self._descriptor, self._waiting[:size])
        except BlockingIOError:
            return False
        del self._waiting[:written]
        return True


def _reopened(descriptor: int, mode: int) -> int | None:
    """A descriptor of the same pipe or terminal that does not block; None if there is none.

    O_NONBLOCK on the descriptor itself would change the open file that other processes share.
    """
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            pass  # no /proc, or a pipe of another user: poll() before each write keeps writes from blocking
    return None


# The destination of lines; None before configure().
_writer: _Writer | None = None
_flush_due = False


class JsonLines(logging.Formatter):
    """One JSON object per line. The trace of an exception is a field, so that one event is one line."""

    def format(self, record: logging.LogRecord) -> str:
        line = _head(int(record.created * 1000), record.levelno, record.name, record.getMessage())
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _dumps(line).decode()


class _Handler(logging.Handler):
    """Sends the records of every logger to the writer."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode() + b"\n"
        except Exception:  # noqa: BLE001 -- as every handler: a record that cannot be formatted must not fail its caller
            self.handleError(record)
            return
        self._writer.write(line)
        self._writer.flush()

    def close(self) -> None:
        """Called by logging.shutdown() at the exit of the interpreter."""
        self._writer.close()
        super().close()


def _dumps(values: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(values, default=str)
    except TypeError:  # half a surrogate pair, as in a file's name that is no UTF-8
        told = {name: value if isinstance(value, int | float) else _sound(value) for name, value in values.items()}
        return orjson.dumps(told)


def _sound(value: object) -> str:
    return str(value).encode(errors="backslashreplace").decode()


def _head(at: int, level: int, logger: str, name: str) -> dict[str, object]:
    """The first fields of every line. `at` is a Unix time in milliseconds."""
    return {"time": _time(at), "level": _level(level), "logger": logger, "event": name}


def _time(at: int) -> str:
    """A Unix time in milliseconds as ISO 8601, UTC."""
    return f"{_second(at // 1000)}.{at % 1000:03d}+00:00"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]


@cache
def _level(number: int) -> str:
    return logging.getLevelName(number).lower()


def event(log: logging.Logger, level: int, name: str, values: dict[str, object]) -> None:
    """As `log.log(level, name, extra={"fields": values})`, at an eighth of the cost: for the line of every request.

    Called on an event loop, with at least one value.
    """
    if not log.isEnabledFor(level):
        return
    if _writer is None:
        log.log(level, name, extra={"fields": values})
        return
    _writer.write(_opening(int(time.time() * 1000), level, log.name, name) + _dumps(values)[1:] + b"\n")
    _flush_soon()


@lru_cache(maxsize=4)
def _opening(at: int, level: int, logger: str, name: str) -> bytes:
    """The bytes of a line before its values. Requests that end in the same millisecond share them."""
    return _dumps(_head(at, level, logger, name))[:-1] + b","


def _flush_soon() -> None:
    """Write the lines of one turn of the event loop with one system call."""
    global _flush_due
    if not _flush_due:
        _flush_due = True
        asyncio.get_running_loop().call_soon(_flush)


def _flush() -> None:
    global _flush_due
    _flush_due = False
    if _writer is not None and not _writer.flush():
        _flush_due = True
        asyncio.get_running_loop().call_later(_RETRY_SECONDS, _flush)


def configure(level: str) -> None:
    """Send every logger's records of at least `level` (debug, info, warning, error) to stderr as JSON lines."""
    global _writer
    stdio.hold()
    _writer = _Writer(sys.stderr.fileno())
    logging.basicConfig(level=level.upper(), handlers=[_Handler(_writer)], force=True)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_has_no_metadata)
    # The native server tries to accept connections 20 times a second while the process has no descriptor left.
    logging.getLogger("pygrpc_native.server").addFilter(_Repeats())
    logging.captureWarnings(capture=True)
    # Without file and source line: a path says how the machine is laid out, and changes from machine to machine.
    warnings.formatwarning = _warning_text


class _Repeats(logging.Filter):
    """Drops lines equal to the last one for a while."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""
        self._until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        if line == self._last and record.created < self._until:
            return False
        self._last, self._until = line, record.created + _REPEAT_SECONDS
        return True


def _has_no_metadata(record: logging.LogRecord) -> bool:
    """grpcio logs each metadata value that is not UTF-8: a key with one byte too many, for one."""
    return not record.getMessage().startswith("Invalid encoding on ")


def _warning_text(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__name__}: {message}"


def fields(**values: object) -> dict[str, dict[str, object]]:
    """For a logging call's `extra`: `log.info("ready", extra=fields(port=1))`."""
    return {"fields": values}
