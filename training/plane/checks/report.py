"""Findings of the checks of a dataset.

Owns the collection: errors refuse the dataset, warnings do not. Of each code the first places are kept, all are
counted.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_MOST_PLACES = 20


@dataclass
class Report:
    """Findings by code. A place is a row of the file, counted from 1 for the header."""

    errors: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    first_time: str = ""
    last_time: str = ""

    def error(self, code: str, row: int, why: str) -> None:
        """A finding that refuses the dataset."""
        self.errors[code] += 1
        self._keep(code, row, why)

    def warn(self, code: str, row: int, why: str, **more: Any) -> None:
        """A finding to look at."""
        self.warnings[code] += 1
        self._keep(code, row, why, **more)

    def saw_time(self, time: str) -> None:
        """Keep the earliest and the latest time; `time` is ISO 8601 in UTC and sorts as text."""
        self.first_time = min(self.first_time or time, time)
        self.last_time = max(self.last_time, time)

    @property
    def reason(self) -> str:
        """Why the dataset is refused, naming the first row; empty when it is not."""
        if not self.errors:
            return ""
        code = next(iter(self.errors))
        first = self.places[code][0]
        where = f"row {first['row']}: " if first["row"] else ""
        others = sum(self.errors.values()) - 1
        return f"{where}{first['why']}" + (f" (and {others} more)" if others else "")

    def as_json(self) -> dict[str, Any]:
        return {
            "errors": dict(self.errors),
            "warnings": dict(self.warnings),
            "places": self.places,
            **self.facts,
        }

    def _keep(self, code: str, row: int, why: str, **more: Any) -> None:
        kept = self.places.setdefault(code, [])
        if len(kept) < _MOST_PLACES:
            kept.append({"row": row, "why": why, **more})
