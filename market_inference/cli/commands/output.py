"""What commands print.

Owns the console and JSON; what a command's table holds is the command's own.
"""

import json
import math
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 160


def console() -> Console:
    """Standard output; plain text, as wide as it needs, when it is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, no_color=True)


def table(title: str, *columns: str, left: int = 1, caption: str = "") -> Table:
    """A table whose first `left` columns are text, which may wrap, and the rest numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    made.caption, made.caption_justify = caption or None, "left"
    for at, name in enumerate(columns):
        made.add_column(name, justify="left" if at < left else "right", no_wrap=at >= left)
    return made


def print_json(value: object) -> None:
    """One JSON document; NaN and infinities, which JSON has not, become null."""
    click.echo(json.dumps(_plain(value), indent=2, allow_nan=False))


def number(value: float) -> str:
    """A price or an indicator at a readable precision."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    return f"{value:,.0f}" if size >= 1e5 else f"{value:,.2f}" if size >= 1 else f"{value:.4f}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
