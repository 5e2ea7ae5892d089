"""The view of `top` in terminals of several sizes: nothing is clipped, and a missing table is named."""

import io

import pytest
from rich.console import Console
from rich.live import Live

from market_inference.cli.top.board import Board, Engine, Latency, Model, Refusal, Service, Traffic
from market_inference.cli.top.interval import Quantile
from market_inference.cli.top.view import View

METHODS = ("Analyze", "AnalyzeSentiment", "ComputeIndicators", "Predict")
PHASES = ("total", "gateway", "queue", "form", "device", "encode", "transport")


def three(*seconds: float) -> tuple[Quantile, ...]:
    return tuple(Quantile(one, beyond=False) for one in seconds)


# A busy pair with an edge: large figures in every column.
BUSY = Board(
    seconds=2.0,
    services=[Service(kind, f"127.0.0.1:{port}", "") for kind, port in (("gateway", 9470), ("inference", 9471))],
    traffic=[Traffic(method, 12345.0, {"RESOURCE_EXHAUSTED": 22.0}) for method in METHODS],
    http=[Traffic("/v1/timeseries/forecast", 50.0, {"400": 1.0})],
    latencies=[Latency("gateway", method, phase, three(0.01, 0.1, 1.0)) for method in METHODS for phase in PHASES],
    engines=[
        Engine(name, 123.4, 31.2, three(16, 32, 64), 1234567.0, 0.123, 0.987, 1234, 1.234, 0.0, 0.0)
        for name in ("forecast", "indicators", "sentiment", "texts")
    ],
    refusals=[Refusal("gateway", "AnalyzeSentiment", "RATE_LIMITED", 22.0)],
    models=[Model("forecast", "auto", 1, 1), Model("sentiment", "minilm", 1, 1)],
    now={
        "requests in flight (gateway)": 4096.0,
        "requests in flight (inference)": 4096.0,
        "sessions": 2048.0,
        "session bytes": 123456789.0,
        "replicas ready": 1.0,
    },
)


def lines(width: int, height: int, *, fitted: bool) -> list[str]:
    out = Console(width=width, height=height, file=io.StringIO())
    out.print(View(BUSY, fitted=fitted))
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_a_terminal_of_80_by_24_shows_services_requests_and_engines_whole():
    found = lines(80, 24, fitted=True)
    assert len(found) <= 24
    assert max(map(len, found)) <= 80
    *shown, rest = found
    assert not any("…" in line for line in shown)
    text = "\n".join(shown)
    for words in ("AnalyzeSentiment", "ComputeIndicators", "indicators", "1,234,567", "98.7 %", "1.234", "p99 ms"):
        assert words in text
    assert rest.startswith("no room for: ")


def test_no_gauge_is_divided_between_two_lines():
    found = lines(80, 24, fitted=True)
    for name in BUSY.now:
        assert any(f"{name}: " in line for line in found)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (80, 60), (200, 24), (200, 80)])
def test_a_redrawn_view_is_never_higher_than_the_terminal(width, height):
    out = Console(width=width, height=height, file=io.StringIO(), force_terminal=True)
    with Live(console=out, auto_refresh=False, vertical_overflow="ellipsis") as live:
        live.update(View(BUSY, fitted=True), refresh=True)
    assert "..." not in out.file.getvalue(), "the last line tells of a crop"
    assert len(lines(width, height, fitted=True)) <= height


def test_a_high_and_wide_terminal_shows_every_table():
    text = "\n".join(lines(200, 80, fitted=True))
    assert "Default models" in text
    assert "Milliseconds of a request by phase" in text
    assert "p50 / p95 / p99" in text
    assert "no room for" not in text


def test_a_printed_view_has_every_table_at_any_size():
    text = "\n".join(lines(80, 24, fitted=False))
    for title in ("Requests", "Engines", "Refused or failed", "Default models", "HTTP requests", "Milliseconds"):
        assert title in text
