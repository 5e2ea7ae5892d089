"""The figures as tables.

Owns layout, units and colours; board.py owns the figures. A terminal narrower than _WIDE gets tables without lines
and without the columns that matter least. A view that is redrawn in place has no scrolling: the tables that do not fit
the terminal's height are left out, the least important first, and the last line names them.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from market_inference.cli.commands.output import table
from market_inference.cli.top.board import LEVELS, Board, Engine, Latency, Traffic
from market_inference.cli.top.interval import Quantile

CAPTION = (
    "Quantiles are estimated from histogram buckets, evenly spread within one, as Prometheus does; "
    "> marks a quantile beyond the last bucket."
)
_HEADS = tuple(f"p{level * 100:g}" for level in LEVELS)
_ABSENT = "-"
# The boxes and all columns of the engines' table need this width, and a pair under load this height.
_WIDE, _TALL = 120, 60
_GAP = "   "
_PHASES = ("total", "gateway", "queue", "form", "device", "encode", "transport")


class View:
    """The whole view, as wide as the terminal; with `fitted` not higher than the terminal."""

    def __init__(self, board: Board, *, fitted: bool = False) -> None:
        self._board = board
        self._fitted = fitted

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.size.height
        compact = width < _WIDE or (self._fitted and height < _TALL)
        head: list[RenderableType] = [_services(self._board)]
        if self._board.now:
            head.append(_now(self._board.now, width))
        if self._board.seconds is None:
            head.append(Text("Rates and quantiles need a second look."))
            yield from head
            return
        tables = [one for one in _tables(self._board, compact=compact) if one.row_count]
        caption = Text(CAPTION, style="dim")
        if not self._fitted:
            yield from (*head, *tables, *((caption,) if self._board.latencies else ()))
            return
        yield from head
        yield from _fitting(tables, height - _height(console, options, head), console, options)


def _tables(board: Board, *, compact: bool) -> list[Table]:
    """The tables, the most important first."""
    made = [
        _traffic("Requests", "method", board.traffic, _totals(board, "gateway"), compact=compact),
        _engines(board.engines, compact=compact),
        _refusals(board),
        _models(board),
        _traffic("HTTP requests", "route", board.http, _totals(board, "edge"), compact=compact),
        _latencies(board.latencies),
        _coverage(board),
        _devices(board),
    ]
    if compact:
        for one in made:
            one.box, one.padding, one.pad_edge = None, (0, 1, 0, 0), False
    return made


def _fitting(
    tables: Sequence[Table], lines: int, console: Console, options: ConsoleOptions
) -> Iterable[RenderableType]:
    """The tables that fit, in their order, and a line with the titles of the others."""
    sizes = [_height(console, options, [one]) for one in tables]
    left_out: list[str] = []
    kept: list[Table] = []
    # The line with the titles needs a line itself, unless all fit.
    room = lines if sum(sizes) <= lines else lines - 1
    for one, size in zip(tables, sizes, strict=True):
        if size <= room:
            kept.append(one)
            room -= size
        else:
            left_out.append(str(one.title))
    yield from kept
    if left_out:
        text = f"no room for: {', '.join(left_out)}"
        yield Text(text, style="dim", no_wrap=True, overflow="ellipsis")


def _height(console: Console, options: ConsoleOptions, parts: Iterable[RenderableType]) -> int:
    return sum(len(console.render_lines(part, options, pad=False)) for part in parts)


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


def _now(now: Mapping[str, float], width: int) -> Text:
    """The gauges, filled into lines; no gauge is divided."""
    lines = [""]
    for name, value in now.items():
        one = f"{name}: {_mebibytes(value) if 'bytes' in name else f'{value:,.0f}'}"
        longer = f"{lines[-1]}{_GAP}{one}" if lines[-1] else one
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(one)
    return Text("\n".join(lines))


def _totals(board: Board, kind: str) -> dict[str, tuple[Quantile, ...]]:
    """The quantiles of a whole request, by method or route."""
    return {one.method: one.quantiles for one in board.latencies if (one.kind, one.phase) == (kind, "total")}


def _traffic(
    title: str, of: str, traffic: Sequence[Traffic], totals: Mapping[str, tuple[Quantile, ...]], *, compact: bool
) -> Table:
    heads = [of, "per second", *(f"{head} ms" for head in _HEADS), "failed"]
    made = table(title, *heads, *(() if compact else ("failed per second, by code",)))
    if not compact:
        made.columns[-1].justify, made.columns[-1].no_wrap = "left", False
    for one in traffic:
        failed = sum(one.errors.values())
        codes = ", ".join(f"{code} {_rate(rate)}" for code, rate in one.errors.items())
        times = [_milliseconds(quantile) for quantile in totals.get(one.method, ())] or [_ABSENT] * len(LEVELS)
        cells = [one.method, _rate(one.rate), *times, _share(failed / one.rate)]
        made.add_row(*cells, *(() if compact else (Text(codes, style="red"),)))
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


def _engines(engines: Iterable[Engine], *, compact: bool) -> Table:
    quantiles, recoveries = " / ".join(_HEADS), "OOM/s"
    heads = (
        "engine",
        "batches/s",
        "items",
        quantiles,
        "units/s",
        "padding",
        "busy",
        "queued",
        "queued s",
        "dropped/s",
        recoveries,
    )
    shown = [head for head in heads if not (compact and head in (quantiles, recoveries))]
    made = table("Engines", *shown)
    for one in engines:
        cells = (
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
        made.add_row(*(cell for head, cell in zip(heads, cells, strict=True) if head in shown))
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
