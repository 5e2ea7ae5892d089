"""Ranges of bytes (RFC 9110, section 14), and the headers of a download.

Owns the reading of `Range` and `If-Range`. One range is served; several ranges in one header are answered with the
whole, as RFC 9110 permits.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from training.plane.errors import PlaneError, Violation

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")


class RangeError(PlaneError):
    """A range that begins behind the end."""

    status = 416
    reason = "RANGE_NOT_SATISFIABLE"


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `end` of `total`."""

    start: int
    end: int
    total: int
    partial: bool

    @property
    def status(self) -> int:
        return 206 if self.partial else 200


def asked(headers: Mapping[str, str], total: int, etag: str) -> Span:
    """The range of the request. Raises RangeError."""
    found = _RANGE.fullmatch(headers.get("range", ""))
    condition = headers.get("if-range", "")
    if found is None or found.groups() == ("", "") or condition not in {"", f'"{etag}"'}:
        return Span(0, total, total, partial=False)
    first, last = found.groups()
    start = int(first) if first else max(0, total - int(last))
    end = min(total, int(last) + 1) if first and last else total
    if start >= total or end <= start:
        raise RangeError("the range begins behind the end", Violation("range", "begins behind the end", total))
    return Span(start, end, total, partial=True)


def headers(span: Span, etag: str, name: str) -> dict[str, str]:
    """The headers of a download: no cache keeps it, no browser guesses its type, and the name is for saving only."""
    made = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(span.end - span.start),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "ETag": f'"{etag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if span.partial:
        made["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{span.total}"
    return made
