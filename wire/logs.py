"""Logs as JSON lines on stderr.

Owns the form of a line: `time`, `level`, `event`, then the fields given in `extra={"fields": {...}}`. Callers pass ids,
codes, sizes and timings, never keys, tokens, texts or series.
"""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, BinaryIO

import orjson

# Where configure() sends the lines; None before it was called.
_stream: BinaryIO | None = None
_flushing = False


class JsonLines(logging.Formatter):
    """One JSON object a line. An exception's trace goes in as a field: one event stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        line = _line(record.created, record.levelno, record.name, record.getMessage(), getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _line(at: float, level: int, logger: str, name: str, values: dict[str, object]) -> dict[str, Any]:
    return {"time": _time(at), "level": _level(level), "logger": logger, "event": name, **values}


def _time(at: float) -> str:
    """A Unix time as ISO 8601 in milliseconds, UTC."""
    second = int(at)
    return f"{_second(second)}.{int((at - second) * 1000):03d}+00:00"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]


@cache
def _level(number: int) -> str:
    return logging.getLevelName(number).lower()


def event(log: logging.Logger, level: int, name: str, **values: object) -> None:
    """As `log.log(level, name, extra=fields(...))`, at a fifth of its cost: for the line that every request writes.

    Called on an event loop.
    """
    if not log.isEnabledFor(level):
        return
    if _stream is None:
        log.log(level, name, extra=fields(**values))
        return
    line = _line(time.time(), level, log.name, name, values)
    _stream.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
    _flush_soon()


def _flush_soon() -> None:
    """Lines of one turn of the event loop leave in one write."""
    global _flushing
    if not _flushing:
        _flushing = True
        asyncio.get_running_loop().call_soon(_flush)


def _flush() -> None:
    global _flushing
    _flushing = False
    if _stream is not None:
        _stream.flush()


def configure(level: str) -> None:
    """Send every logger's records of at least `level` (debug, info, warning, error) to stderr as JSON lines."""
    global _stream
    _stream = sys.stderr.buffer
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """For a logging call's `extra`: `log.info("ready", extra=fields(port=1))`."""
    return {"fields": values}
