"""How the figures are drawn.

Owns tables, units and colours, nothing else.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from market_inference.commands.output import table
from market_inference.top.board import LEVELS, Board, Engine, Latency
from market_inference.top.interval import Quantile

CAPTION = (
    "Quantiles are estimated from histogram buckets, evenly spread within one, as Prometheus does; "
    "> marks what lies beyond the last bucket."
)
_HEADS = tuple(f"p{level * 100:g}" for level in LEVELS)
_NOTHING = "-"


def view(board: Board) -> RenderableType:
    """The whole view, as wide as the terminal."""
    parts: list[RenderableType] = [_services(board)]
    if board.now:
        parts.append(_now(board.now))
    if board.seconds is None:
        parts.append(Text("Rates and quantiles need a second look."))
        return Group(*parts)
    made = (_traffic(board), _latencies(board.latencies), _engines(board.engines), _refusals(board), _models(board))
    parts.extend(one for one in made if one.row_count)
    if board.latencies:
        parts.append(Text(CAPTION, style="dim"))
    return Group(*parts)


def _services(board: Board) -> Text:
    over = "" if board.seconds is None else f"  over {board.seconds:.1f} s"
    line = Text(f"market-inference{over}", style="bold")
    for service in board.services:
        line.append(f"\n{service.kind:<10}{service.address:<24}", style="default")
        if service.problem:
            line.append(f"not reachable: {service.problem}", style="bold red")
        else:
            line.append("up", style="green")
    return line


def _now(now: Mapping[str, float]) -> Text:
    return Text("   ".join(f"{name}: {_amount(name, value)}" for name, value in now.items()))


def _amount(name: str, value: float) -> str:
    return f"{value / (1 << 20):,.1f} MiB" if "bytes" in name else f"{value:,.0f}"


def _traffic(board: Board) -> Table:
    made = table("Requests", "method", "per second", "failed", "failed per second, by code")
    made.columns[-1].justify = "left"
    for one in board.traffic:
        failed = sum(one.errors.values())
        codes = ", ".join(f"{code} {_rate(rate)}" for code, rate in one.errors.items())
        made.add_row(one.method, _rate(one.rate), _share(failed / one.rate), Text(codes, style="red"))
    return made


def _latencies(latencies: Iterable[Latency]) -> Table:
    """A row per method, the phases side by side."""
    latencies = list(latencies)
    phases = list(dict.fromkeys(one.phase for one in sorted(latencies, key=lambda one: (one.phase != "total",))))
    rows: dict[tuple[str, str], dict[str, Latency]] = defaultdict(dict)
    for one in latencies:
        rows[one.kind, one.method][one.phase] = one
    made = table(f"Milliseconds of a request by phase: {' / '.join(_HEADS)}", "at", "method", *phases, left=2)
    for (kind, method), found in rows.items():
        made.add_row(kind, method, *(_several(found[phase].quantiles) if phase in found else "" for phase in phases))
    return made


def _several(quantiles: Iterable[Quantile]) -> str:
    return " / ".join(_beyond(one, f"{one.value * 1e3:,.{_digits(one.value * 1e3)}f}") for one in quantiles)


def _engines(engines: Iterable[Engine]) -> Table:
    heads = ("engine", "batches/s", "items", " / ".join(_HEADS), "padding", "busy", "queued", "queued s", "dropped/s")
    made = table("Engines", *heads, "out of memory/s")
    for one in engines:
        made.add_row(
            one.name,
            _rate(one.batches),
            _NOTHING if one.items is None else f"{one.items:.1f}",
            # A batch has whole items, and the estimate lies above the bound of the bucket below.
            " / ".join(_beyond(size, f"{math.ceil(size.value)}") for size in one.item_quantiles) or _NOTHING,
            _share(one.padding),
            _share(one.busy),
            f"{one.queued_items:,.0f}",
            f"{one.queued_seconds:.3f}",
            _rate(one.dropped),
            _rate(one.recoveries),
        )
    return made


def _refusals(board: Board) -> Table:
    made = table("Refused or failed", "at", "what", "reason", "per second", left=3)
    for one in board.refusals:
        made.add_row(one.kind, one.where, one.reason, _rate(one.rate))
    return made


def _models(board: Board) -> Table:
    made = table("Default models", "engine", "model", "ready", left=2)
    for one in board.models:
        style = "green" if one.ready == one.of else "bold red"
        made.add_row(one.engine, one.model, Text(f"{one.ready:.0f} of {one.of}", style=style))
    return made


def _rate(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or not value else f"{value:.2g}"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{100 * value:.1f} %"


def _digits(value: float) -> int:
    """Decimals that leave three figures or so."""
    return 0 if value >= 100 else 1 if value >= 10 else 2


def _beyond(quantile: Quantile, text: str) -> str:
    return f"> {text}" if quantile.beyond else text
