"""Reports from a pod's thread: heartbeats, faults of the plane, orders, and that training never waits."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.http_thread import running
from tests.runtime.remote.answers import answering
from training.pod.plane import AwayError, Plane
from training.pod.report import Reporter


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reports: list[dict] = []
        self.statuses: list[int] = []
        self.torn = 0
        self.retry_after = "0"
        self.answer = {"stop": False, "seconds_left": 100.0}
        self.came = threading.Condition()

    def until(self, condition: Callable[[], bool]) -> None:
        with self.came:
            assert self.came.wait_for(condition, 60)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.came:
            status = self.server.statuses.pop(0) if self.server.statuses else 200
            if status == 200:
                self.server.reports.append(body)
            self.server.came.notify_all()
        self.send_response(status)
        self.send_header("Retry-After", self.server.retry_after)
        if self.server.torn > 0:
            self.server.torn -= 1
            self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(json.dumps(self.server.answer).encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as made:
        yield made


def reporter(server: Server, seconds: float = 0.02) -> Reporter:
    return Reporter(Plane(f"http://127.0.0.1:{server.server_port}", "J", "t"), seconds)


def test_what_is_measured_arrives_once_in_order_whatever_the_plane_answers(server: Server) -> None:
    server.statuses = [503, 503, 500, 429]
    report = reporter(server)
    report.start()
    for step in range(1, 51):
        report.measure(step, 100, {"loss": 1.0 / step, "bad": float("nan")})
    server.until(lambda: sum(len(one["metrics"]) for one in server.reports) == 50)
    report.stop()
    got = [one for sent in server.reports for one in sent["metrics"]]
    assert [one["step"] for one in got] == list(range(1, 51))
    assert {one["name"] for one in got} == {"loss"}
    assert server.reports[-1]["progress"] == 0.5


def test_heartbeats_go_on_without_measurements(server: Server) -> None:
    report = reporter(server)
    report.start()
    server.until(lambda: len(server.reports) >= 3)
    report.stop()


@pytest.mark.parametrize("refusal", [True, False])
def test_the_answer_can_stop_the_training(server: Server, refusal: bool) -> None:
    if refusal:
        server.statuses = [409] * 100
    else:
        server.answer = {"stop": True, "seconds_left": 0.0}
    report = reporter(server)
    report.start()
    assert report.stopping.wait(60)
    report.stop()
    assert report.why_stopping


def test_a_plane_that_is_away_slows_nothing_down() -> None:
    report = Reporter(Plane("http://127.0.0.1:1", "J", "t"), 0.01)
    report.start()
    began = time.thread_time()
    for step in range(20_000):
        report.measure(step, 20_000, {"loss": 0.5})
    assert time.thread_time() - began < 5
    report.stop()
    assert not report.stopping.is_set()


def test_the_last_numbers_are_sent_at_the_end(server: Server) -> None:
    report = reporter(server, seconds=60)
    report.start()
    server.until(lambda: len(server.reports) >= 1)
    report.measure(7, 7, {"loss": 0.25})
    report.stop()
    assert server.reports[-1]["metrics"][0]["value"] == 0.25


def test_no_one_waits_for_a_pause_that_ends_too_late(server: Server) -> None:
    """Each checkpoint held the training for two minutes after a refusal that named ten."""
    server.statuses, server.retry_after = [429] * 5, "600"
    with pytest.raises(AwayError, match="429"):
        Plane(f"http://127.0.0.1:{server.server_port}", "J", "t").insist("uploads", {}, 120.0)
    assert len(server.statuses) == 4


def test_an_answer_that_is_torn_or_no_json_ends_nothing(server: Server) -> None:
    server.torn = 2
    report = reporter(server)
    report.start()
    server.until(lambda: len(server.reports) >= 4)
    assert not report.stopping.is_set()
    server.answer = None
    server.until(lambda: len(server.reports) >= 6)
    report.stop()
    assert not report.stopping.is_set()


def test_the_token_follows_no_redirect():
    with answering(b"{}") as other, answering(b"", 302, {"Location": other.url}) as moved:
        assert Plane(moved.url, "J", "secret-token").post("metrics", {}) == {}
    assert "secret-token" in str(moved.seen)
    assert other.seen
    assert "secret-token" not in str(other.seen)
