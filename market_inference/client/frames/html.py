"""Answers as small HTML tables, for notebooks.

Owns the markup. Every text is escaped: symbols and errors come from data.
"""

from collections.abc import Iterable, Sequence
from html import escape

MOST_ROWS = 12


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, left_out: int = 0) -> str:
    """A table; `left_out` rows are counted below it."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    more = f"<p>and {left_out} more</p>" if left_out else ""
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>{more}"
    )


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))
