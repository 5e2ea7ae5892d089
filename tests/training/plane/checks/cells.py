"""Cells that a file may hold: what numbers, labels, times and texts are read from."""

import csv
import io
import json

from hypothesis import strategies as st

from training.plane.checks.report import Report

ODD = (
    "", " ", "\0", "a\0b", "\n", '"', ",", "\ufeff", "\U0010ffff", "\ud800", "\u0663", "\uff19", "\u00b2", "_", "1_0",
    "0x1", "0", "-0", "007", "+1", "999", "1000", "9" * 5000, "0" * 5000, "0" * 5000 + "7", "9" * 90_000,
    "1" + "0" * 400, "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e308", "-1e308", "1.7976931348623157e308",
    "1e309", "1e-300", "5e-324", "-5e-324", "1e-9999", "1e" + "9" * 5000, "0001-01-01", "0001-01-01T00:00+14:00",
    "9999-12-31T23:59-14:00", "2026-02-30", "2026-W01-1", "20260101", "10000-01-01",
    "2026-01-01T00:00:00.000000001Z", "2026-01-01T24:00",
)  # fmt: skip
CELLS = st.sampled_from(ODD) | st.text(max_size=8) | st.floats().map(repr) | st.datetimes().map(str)


def content(rows: list[list[str]]) -> bytes:
    """The rows as CSV. Surrogates become bytes that are not UTF-8."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


def must_be_storable(report: Report) -> None:
    """JSON of both databases has no NaN and no infinity."""
    json.dumps(report.as_json(), allow_nan=False)
    assert len(report.reason) < 1000
    assert max(len(report.first_time), len(report.last_time)) <= 40
