"""`market-inference top` with the real pair under a small load."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from market_inference.cli.commands.serve import serve
from market_inference.cli.commands.top import top
from market_inference.cli.main import main
from market_inference.cli.top.board import board
from market_inference.cli.top.services import Services
from market_inference.cli.top.view import CAPTION, View
from market_inference.contract.generated import inference_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
PREDICT = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=3)


def work(running) -> None:
    """Send some good calls and a bad one; returns when the gateway has counted all of them."""
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(running.stub.Predict, PREDICT, metadata=running.metadata, timeout=60) for _ in range(24)]
        calls.append(
            pool.submit(
                running.stub.AnalyzeSentiment,
                pb.AnalyzeSentimentRequest(texts=["Profit rose sharply"]),
                metadata=running.metadata,
                timeout=60,
            )
        )
        for call in calls:
            call.result()
    with pytest.raises(grpc.RpcError):
        running.stub.Predict(pb.PredictRequest(horizon=1), metadata=running.metadata, timeout=60)
    running.wait_recorded()


def drawn(board) -> str:
    out = Console(width=200, file=io.StringIO())
    out.print(View(board))
    return out.file.getvalue()


@pytest.fixture
def watched(running):
    with Services([running.pair.metrics["gateway"]], [running.pair.metrics["inference"]], timeout=60.0) as watched:
        yield watched


def test_the_figures_match_the_load(running, watched):
    running.wait_recorded()
    first = board(watched.look())
    assert (first.seconds, first.traffic) == (None, [])
    assert "need a second look" in drawn(first)
    work(running)
    gateway, inference = seen = watched.look()
    found = board(seen)
    predict = next(one for one in found.traffic if one.method == "Predict")
    assert predict.rate * gateway.interval.seconds == pytest.approx(25)
    assert predict.errors["INVALID_ARGUMENT"] * gateway.interval.seconds == pytest.approx(1)
    phases = {(one.kind, one.method, one.phase): one.quantiles for one in found.latencies}
    for phase in ("total", "queue", "device"):
        p50, p95, p99 = phases["gateway", "Predict", phase]
        assert 0 < p50.value <= p95.value <= p99.value
        assert ("inference", "predict", phase) in phases
    forecast = next(one for one in found.engines if one.name == "forecast")
    assert forecast.batches * inference.interval.seconds * forecast.items == pytest.approx(24)
    assert forecast.padding == 0.0
    assert 0 < forecast.busy <= 1
    assert {(one.engine, one.ready, one.of) for one in found.models} >= {("forecast", 1.0, 1), ("sentiment", 1.0, 1)}
    assert found.now["replicas ready"] == 1
    assert any((one.where, one.reason) == ("Predict", "INVALID_REQUEST") for one in found.refusals)


def test_the_view_shows_every_part(running, watched):
    watched.look()
    work(running)
    text = drawn(board(watched.look()))
    for words in (
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        "forecast",
        "replicas ready: 1",
        "p50 / p95 / p99",
        "p99 ms",
        "transport",
        CAPTION,
    ):
        assert words in text
    assert re.search(r"gateway +127\.0\.0\.1:\d+ +up", text)


def test_once_prints_one_interval_and_ends(running, monkeypatch):
    monkeypatch.setattr("market_inference.cli.commands.top.LONGEST_WAIT", 60.0)  # a busy service answers late
    options = [f"--{kind}={address}" for kind, address in running.pair.metrics.items()]
    done = CliRunner().invoke(main, ["top", "--once", "--interval", "0.2", *options])
    assert done.exit_code == 0, done.output
    assert "Default models" in done.output
    done = CliRunner().invoke(main, ["top", "--once", "--json", "--interval", "0.2", *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["seconds"] > 0.1
    assert [service["problem"] for service in found["services"]] == ["", ""]


class Flapping:
    """A service that answers with an error while `page` is None."""

    def __init__(self) -> None:
        self.page: str | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(503 if outer.page is None else 200)
                self.end_headers()
                self.wfile.write((outer.page or "").encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def flapping():
    service = Flapping()
    yield service
    service.server.shutdown()
    service.server.server_close()


def test_an_unreachable_service_is_shown_as_such_until_it_returns(flapping):
    with Services([flapping.address], ["127.0.0.1:1"], timeout=60.0) as services:
        away = board(services.look())
        assert [service.problem for service in away.services] == ["Service Unavailable", "Connection refused"]
        assert "not reachable: Connection refused" in drawn(away)
        flapping.page = "market_gateway_in_flight_requests 3\nmarket_gateway_requests_total{method='x'}"
        assert board(services.look()).services[0].problem == "not a page of metrics: ValueError"
        flapping.page = "market_gateway_in_flight_requests 3\n"
        back = board(services.look())
        assert (back.services[0].problem, back.now) == ("", {"requests in flight (gateway)": 3.0})
        assert back.seconds is None, "no rates across an interval without data"
        assert board(services.look()).seconds > 0


def test_the_exit_status_tells_a_script_of_an_unreachable_service():
    done = CliRunner().invoke(
        main, ["top", "--once", "--interval", "0.1", "--gateway", "127.0.0.1:1", "--inference", "127.0.0.1:1"]
    )
    assert done.exit_code == 1
    assert done.output.count("not reachable: Connection refused") == 2


def test_a_terminal_is_redrawn_until_ctrl_c(running):
    options = [f"--{kind}={address}" for kind, address in running.pair.metrics.items()]
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "market_inference", "top", "--interval", "0.2", *options],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "160", "LINES": "60"},
    ) as following:  # fmt: skip
        try:
            os.close(theirs)
            shown = b""
            while shown.count(b"Default models") < 2 or b"replicas ready: 1" not in shown:
                shown += os.read(ours, 65536)
            following.send_signal(signal.SIGINT)
            assert following.wait(60) == 0
        finally:
            following.kill()
            os.close(ours)


def test_serve_top_and_the_local_prometheus_use_the_same_ports():
    defaults = {option.name: option.default for option in serve.params}
    looked_at = {option.name: option.default for option in top.params}
    assert looked_at["gateways"] == (f"127.0.0.1:{defaults['metrics_port']}",)
    assert looked_at["replicas"] == (f"127.0.0.1:{defaults['inference_metrics_port']}",)
    jobs = yaml.safe_load((ROOT / "observability" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: tuple(job["static_configs"][0]["targets"]) for job in jobs}
    assert targets == {
        "gateway": looked_at["gateways"],
        "inference": looked_at["replicas"],
        "edge": (f"127.0.0.1:{defaults['http_metrics_port']}",),
    }
