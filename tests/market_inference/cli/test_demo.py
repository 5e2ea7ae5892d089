"""The demo's own parts; the whole of it runs in test_pair_real.py."""

import re
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import NormalDist
from threading import Thread

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from market_inference.cli.demo import bars as market
from market_inference.cli.demo import batches, chart, report
from market_inference.cli.demo.headlines import HEADLINES
from market_inference.cli.demo.steps import Steps
from market_inference.client.answers import Answers
from market_inference.client.forecast import Coverage, Forecast


@pytest.fixture(scope="module")
def known() -> list[market.Bars]:
    return market.load()


def test_the_bars_keep_the_contract_s_rules_after_adjustment(known: list[market.Bars]) -> None:
    for bars in known:
        columns = bars.columns
        assert all(np.isfinite(values).all() for values in columns.values())
        slack = 1e-9 * columns["high"]
        assert (columns["low"] <= np.minimum(columns["open"], columns["close"]) + slack).all()
        assert (columns["high"] >= np.maximum(columns["open"], columns["close"]) - slack).all()
        assert (columns["volume"] >= 0).all()


def test_adjustment_takes_splits_out_and_leaves_the_last_day_s_prices(known: list[market.Bars]) -> None:
    apple = next(bars for bars in known if bars.symbol == "AAPL")
    split = apple.days.index(date(2005, 2, 28))
    assert abs(np.diff(np.log(apple.closes))[split - 1]) < 0.05
    assert apple.closes[-1] == 430.47


def test_what_the_service_sees_ends_before_what_came_afterwards(known: list[market.Bars]) -> None:
    for bars in known:
        seen, later = bars.until(len(bars) - 10, 750), bars.until(len(bars), 10)
        assert seen.days[-1] < later.days[0]
        assert len(later) == 10
        assert 30 <= len(seen) <= 750
        np.testing.assert_array_equal(np.concatenate([seen.closes[-5:], later.closes]), bars.closes[-15:])


def test_every_headline_belongs_to_a_stock_of_the_demo() -> None:
    assert {symbol for symbol, _ in HEADLINES} == set(market.NAMES)


@pytest.mark.parametrize("count", [1, 5])
def test_the_chart_is_a_picture_whatever_the_number_of_panels(tmp_path: Path, count: int) -> None:
    path = tmp_path / "made" / "chart.png"
    chart.draw([_panel(at) for at in range(count)], "A title", path)
    picture = matplotlib.image.imread(path)
    colours = np.unique((picture[::3, ::3, :3] * 255).round().astype(int).reshape(-1, 3), axis=0)
    for shade in (*chart.SHADES.values(), chart.BLUE, chart.VERMILLION):
        wanted = [int(shade[at : at + 2], 16) for at in (1, 3, 5)]
        assert np.abs(colours - wanted).sum(axis=1).min() <= 3, shade


def test_all_prices_of_the_table_have_the_same_decimals(known: list[market.Bars]) -> None:
    panels = [_panel(at) for at in range(3)]
    answers = Answers([panel.forecast for panel in panels], ("A", "B", "C"))
    shown = report.forecasts(known[:3], [panel.later_closes for panel in panels], answers)
    prices = [cell for column in shown.columns[1:5] for text in column.cells for cell in str(text).split(" to ")]
    assert len(prices) == 15
    assert all(re.fullmatch(r"[\d,]+\.\d\d", price) for price in prices), prices


def test_the_levels_asked_for_are_the_edges_of_the_bands() -> None:
    assert chart.LEVELS == [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]


def test_batches_are_read_from_the_service_s_metrics() -> None:
    name = b'market_inference_batch_items_%s{engine="%s"} %s\n'
    text = (
        name % (b"sum", b"forecast", b"30.0")
        + name % (b"count", b"forecast", b"4.0")
        + name % (b"sum", b"sentiment", b"9.0")
    )

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        found = batches.read(f"127.0.0.1:{server.server_port}", "forecast").since(batches.Batches(1, 10))
        thread.join(60)
    assert (found.batches, found.items) == (3, 20)
    assert batches.Batches().mean == 0


def test_steps_are_announced_without_a_terminal_and_summed_up() -> None:
    console = Console(force_terminal=False, width=100)
    steps = Steps(console)
    with console.capture() as said:
        with steps.step("Do it") as step:
            step.detail = "well done"
        with pytest.raises(ZeroDivisionError), steps.step("Fail"):
            raise ZeroDivisionError
        console.print(steps.summary())
    assert said.get().startswith("Do it ...\nFail ...\n")
    assert "well done" in said.get()
    assert [step.name for step in steps.done] == ["Do it"]


def _panel(seed: int) -> chart.Panel:
    closes = 100 + np.random.default_rng(seed).standard_normal(40).cumsum()
    spread = np.outer(np.sqrt(np.arange(1, 6)), [NormalDist().inv_cdf(level) for level in chart.LEVELS])
    quantiles = closes[-1] + 3 * spread
    forecast = Forecast(
        symbol="A",
        point=quantiles[:, 3],
        quantiles=quantiles,
        levels=np.array(chart.LEVELS),
        coverage=Coverage(0.8, 0.75, 12),
        gate=0.0,
        logs=True,
        context=40,
        model="m",
        model_version="1",
        request_id="r",
    )
    days = [date(2026, 1, 1) + timedelta(days=at) for at in range(45)]
    return chart.Panel("A", days[:40], closes, forecast, days[40:], closes[-1] + np.arange(5.0))
