"""Checks of labelled texts: columns `text` and `label`, and where there are times `time` and `label_time`.

Owns the rules for rows. `time` is when the text could be known, `label_time` when the label was decided.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from training.plane.checks import rows
from training.plane.checks.duplicates import MOST_LABELS, Duplicates, words
from training.plane.checks.leakage import LeakProbe
from training.plane.checks.report import Report

MOST_CHARACTERS = 10_000
MOST_MONTHS = 120
"""The newest months whose labels are counted."""
FEWEST_ROWS = 20
MOST_CONFLICTING = 0.05
_REQUIRED = ("text", "label")
_LABEL = re.compile("[0-9]{1,100}")  # int() of thousands of digits raises, also where recipes and the gate read


def check(chunks: Iterable[bytes], report: Report, alive: Callable[[], None]) -> None:
    """Read the file once; `alive` is called now and then."""
    header, found = rows.table(chunks, report, rows.MOST_TEXTS)
    if missing := [name for name in _REQUIRED if name not in header]:
        report.error("columns", 1, f"no column {missing[0]!r}; there are: {', '.join(header)[:200]}")
        return
    texts = _Texts({name: header.index(name) for name in (*_REQUIRED, "time", "label_time") if name in header}, report)
    for row, fields in found:
        texts.add(row, fields)
        if row % 20_000 == 0:
            alive()
    texts.finish()


class _Texts:
    def __init__(self, columns: dict[str, int], report: Report) -> None:
        self._columns = columns
        self._report = report
        self._labels: Counter[int] = Counter()
        self._months: dict[str, Counter[int]] = defaultdict(Counter)
        self._duplicates = Duplicates()
        self._probe = LeakProbe()
        self._good = 0

    def add(self, row: int, fields: list[str]) -> None:
        text = fields[self._columns["text"]]
        label = self._label(row, fields)
        if not text.strip():
            self._report.error("text", row, "the text is blank")
        elif len(text) > MOST_CHARACTERS:
            self._report.error("text", row, f"at most {MOST_CHARACTERS} characters, got {len(text)}")
        elif label is not None and self._times(row, fields, label):
            found = words(text)
            self._good += 1
            self._labels[label] += 1
            self._duplicates.add(row, found, label, self._report)
            self._probe.add(found, label)

    def _label(self, row: int, fields: list[str]) -> int | None:
        text = fields[self._columns["label"]].strip()
        if _LABEL.fullmatch(text) and int(text) < MOST_LABELS:
            return int(text)
        self._report.error("label", row, f"the label must be a whole number from 0 to {MOST_LABELS - 1}")
        return None

    def _times(self, row: int, fields: list[str], label: int) -> bool:
        """Whether the times are as they must be; the month is counted."""
        at = {}
        for name in ("time", "label_time"):
            if name in self._columns:
                at[name] = rows.utc(fields[self._columns[name]].strip())
                if at[name] is None:
                    self._report.error(name, row, f"{name} must be ISO 8601, such as 2026-03-31T20:00:00Z")
                    return False
        time, label_time = at.get("time"), at.get("label_time")
        if time is not None and label_time is not None and label_time < time:
            self._report.error("label_time", row, "label_time is before time")
            return False
        if time is not None:
            self._report.saw_time(time)
            self._months[time[:7]][label] += 1
            if len(self._months) > 2 * MOST_MONTHS:
                self._months = defaultdict(Counter, sorted(self._months.items())[-MOST_MONTHS:])
        return True

    def finish(self) -> None:
        report = self._report
        report.facts["labels"] = {str(label): count for label, count in sorted(self._labels.items())}
        report.facts["labels_by_month"] = {
            month: {str(label): count for label, count in sorted(counts.items())}
            for month, counts in sorted(self._months.items())[-MOST_MONTHS:]
        }
        if report.errors:
            return
        if self._good < FEWEST_ROWS:
            report.error("rows", 0, f"at least {FEWEST_ROWS} rows, got {self._good}")
        elif len(self._labels) < 2:
            report.error("labels", 0, "every row has the same label")
        elif self._duplicates.conflicting > MOST_CONFLICTING * self._good:
            share = self._duplicates.conflicting / self._good
            report.error(
                "contradictions", 0, f"{share:.1%} of the texts have two labels (at most {MOST_CONFLICTING:.0%})"
            )
        # Rows are split by time where there are times, and files are usually in the order of time.
        self._duplicates.finish(2 + report.rows * 4 // 5, report)
        self._probe.finish(report)
