"""Reads the rows of a CSV file from a stream of bytes: header, fields, times.

Owns the file format: UTF-8, a header line, commas, quotes as in RFC 4180. The rules for fields belong to the checks.
"""

import codecs
import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from training.plane.checks.report import Report
from training.recipes.table import records

MOST_TEXTS = 10_000_000
MOST_BARS = 50_000_000
"""Rows of a dataset: the gate holds 26 bytes of each text and 8 of each bar."""
MOST_FIELD_CHARACTERS = 100_000
MOST_COLUMNS = 200
_LONGEST_LINE = 1 << 20


class UnreadableError(Exception):
    """The bytes are no such file; the reason is in the report."""


def lines(chunks: Iterable[bytes], report: Report) -> Iterator[str]:
    """The lines with their ends. Raises UnreadableError after bytes that are not UTF-8 or a line that is too long."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest, row = "", 1
    try:
        for chunk in chunks:
            # Only at "\n": str.splitlines() also breaks at characters that texts contain, such as U+2028.
            *whole, rest = (rest + decoder.decode(chunk)).split("\n")
            yield from (line + "\n" for line in whole)
            row += len(whole)
            if len(rest) > _LONGEST_LINE:
                report.error("line_too_long", row, f"a line of more than {_LONGEST_LINE} characters")
                raise UnreadableError
        rest += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        report.error("encoding", row, f"not UTF-8: {error.reason}")
        raise UnreadableError from None
    if rest:
        yield rest


def table(chunks: Iterable[bytes], report: Report, most: int) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The names in the header, and at most `most` rows with their numbers.

    Rows with another number of fields are reported. Raises UnreadableError for a header that is missing, too wide or
    has a name twice, for lines other than CSV, and for more rows.
    """
    csv.field_size_limit(MOST_FIELD_CHARACTERS)
    reader = records(lines(chunks, report))
    header = [name.strip().lower() for name in _next(reader, report) or []]
    if not header:
        report.error("empty", 0, "the file is empty")
        raise UnreadableError
    if len(header) > MOST_COLUMNS:
        report.error("columns", 1, f"at most {MOST_COLUMNS} columns, got {len(header)}")
        raise UnreadableError
    if twice := sorted({name for name in header if header.count(name) > 1}):
        report.error("columns", 1, f"the header names {twice[0][:40]!r} twice")
        raise UnreadableError
    return header, _rows(reader, len(header), report, most)


def _rows(reader: Iterator[list[str]], width: int, report: Report, most: int) -> Iterator[tuple[int, list[str]]]:
    row = 1
    while (fields := _next(reader, report)) is not None:
        row += 1
        if row > most + 1:
            report.error("rows", row, f"at most {most} rows")
            raise UnreadableError
        if len(fields) != width:
            report.error("fields", row, f"{len(fields)} fields where the header has {width}")
        else:
            yield row, fields
    report.rows = row - 1


def _next(reader: Iterator[list[str]], report: Report) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        report.error("csv", 0, f"not CSV: {error}")
        raise UnreadableError from None


def utc(text: str) -> str | None:
    """An ISO 8601 date or time in UTC, in a form that sorts as text; without a zone it is UTC. None when it is none."""
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at.isoformat(timespec="microseconds")
