"""The figures as tables.

Owns layout, units and colours; board.py owns the figures.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from market_inference.cli.commands.output import table
from market_inference.cli.top.board import LEVELS, Board, Engine, Latency
from market_inference.cli.top.interval import Quantile

CAPTION = (
    "Quantiles are estimated from histogram buckets, evenly spread within one, as Prometheus does; "
    "> marks a quantile beyond the last bucket."
)
_HEADS = tuple(f"p{level * 100:g}" for level in LEVELS)
_ABSENT = "-"
_PHASES = ("total", "gateway", "queue", "form", "device", "encode", "transport")


def view(board: Board) -> RenderableType:
    """The whole view, as wide as the terminal."""
    parts: list[RenderableType] = [_services(board)]
    if board.now:
        parts.append(_now(board.now))
    if board.seconds is None:
        parts.append(Text("Rates and quantiles need a second look."))
        return Group(*parts)
    made = (
        _traffic(board),
        _latencies(board.latencies),
        _engines(board.engines),
        _refusals(board),
        _models(board),
        _coverage(board),
        _devices(board),
    )
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
    return _mebibytes(value) if "bytes" in name else f"{value:,.0f}"


def _traffic(board: Board) -> Table:
    totals = {one.method: one.quantiles for one in board.latencies if (one.kind, one.phase) == ("gateway", "total")}
    heads = ("method", "per second", *(f"{head} ms" for head in _HEADS), "failed", "failed per second, by code")
    made = table("Requests", *heads)
    made.columns[-1].justify, made.columns[-1].no_wrap = "left", False
    for one in board.traffic:
        failed = sum(one.errors.values())
        codes = ", ".join(f"{code} {_rate(rate)}" for code, rate in one.errors.items())
        times = [_milliseconds(quantile) for quantile in totals.get(one.method, ())] or [_ABSENT] * len(LEVELS)
        made.add_row(one.method, _rate(one.rate), *times, _share(failed / one.rate), Text(codes, style="red"))
    return made


def _latencies(latencies: Sequence[Latency]) -> Table:
    """A row for each method and level, with the phases side by side: the gateway's, which include the replicas'."""
    kind = "gateway" if any(one.kind == "gateway" for one in latencies) else "inference"
    told = [one for one in latencies if one.kind == kind and (one.phase != "total" or kind == "inference")]
    phases = sorted({one.phase for one in told}, key=_place)
    rows: dict[str, dict[str, Latency]] = defaultdict(dict)
    for one in told:
        rows[one.method][one.phase] = one
    made = table("Milliseconds of a request by phase", "method", "", *phases, left=2)
    for method, found in rows.items():
        for at, head in enumerate(_HEADS):
            cells = (_milliseconds(found[phase].quantiles[at]) if phase in found else "" for phase in phases)
            made.add_row("" if at else method, head, *cells, end_section=head == _HEADS[-1])
    return made


def _place(phase: str) -> tuple[int, str]:
    """The sort key of a phase: the order in which a request passes the phases, unknown phases last."""
    return (_PHASES.index(phase) if phase in _PHASES else len(_PHASES), phase)


def _engines(engines: Iterable[Engine]) -> Table:
    heads = (
        "engine",
        "batches/s",
        "items",
        " / ".join(_HEADS),
        "units/s",
        "padding",
        "busy",
        "queued",
        "queued s",
        "dropped/s",
    )
    made = table("Engines", *heads, "OOM/s")
    for one in engines:
        made.add_row(
            one.name,
            _rate(one.batches),
            _ABSENT if one.items is None else f"{one.items:.1f}",
            # A batch has whole items, so the estimate within a bucket is rounded up.
            " / ".join(_beyond(size, f"{math.ceil(size.value)}") for size in one.item_quantiles) or _ABSENT,
            _rate(one.units),
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


def _coverage(board: Board) -> Table:
    made = table("Closes inside the 80% interval that live sessions forecast", "model", "per second", "inside")
    for one in board.coverage:
        made.add_row(one.model, _rate(one.checks), _share(one.share))
    return made


def _devices(board: Board) -> Table:
    made = table("Device memory", "address", "replica", "all processes", "total", "busy")
    for one in board.devices:
        memory = (_ABSENT if size is None else _mebibytes(size) for size in (one.reserved, one.used, one.total))
        made.add_row(one.address, *memory, _share(one.utilisation))
    return made


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def _rate(value: float | None) -> str:
    if value is None:
        return _ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or not value else f"{value:.2g}"


def _share(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.1f} %"


def _milliseconds(quantile: Quantile) -> str:
    """Milliseconds with about three significant digits."""
    value = quantile.value * 1e3
    return _beyond(quantile, f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}")


def _beyond(quantile: Quantile, text: str) -> str:
    return f"> {text}" if quantile.beyond else text
