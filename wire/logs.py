"""Logs as JSON lines on stderr.

Owns the form of a line: `time`, `level`, `event`, then the fields given in `extra={"fields": {...}}`. Callers pass ids,
codes, sizes and timings, never keys, tokens, texts or series.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson

# Where configure() sends the lines; None before it was called.
_stream: BinaryIO | None = None


class JsonLines(logging.Formatter):
    """One JSON object a line. An exception's trace goes in as a field: one event stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = _line(at, record.levelno, record.name, record.getMessage(), getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _line(at: datetime, level: int, logger: str, event: str, values: dict[str, object]) -> dict[str, Any]:
    return {
        "time": at.isoformat(timespec="milliseconds"),
        "level": logging.getLevelName(level).lower(),
        "logger": logger,
        "event": event,
        **values,
    }


def event(log: logging.Logger, level: int, name: str, **values: object) -> None:
    """As `log.log(level, name, extra=fields(...))`, at a third of its cost: for the line that every request writes."""
    if not log.isEnabledFor(level):
        return
    if _stream is None:
        log.log(level, name, extra=fields(**values))
        return
    line = _line(datetime.now(UTC), level, log.name, name, values)
    _stream.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
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
