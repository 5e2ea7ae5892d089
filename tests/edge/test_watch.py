"""Live sessions over server-sent events and over a WebSocket, beside the full calls on the same bars."""

import asyncio
import http.client
import json
import os
import socket
import time
from contextlib import AsyncExitStack, closing

import psutil
import pytest
import websockets

from gateway.transport.interface import LIMITS
from tests.edge.test_tables import SPLIT
from tests.eventually import eventually

CLOSES = [100 + (at * 7) % 11 + at / 10 for at in range(80)]
BARS = [108.0 + at / 4 for at in range(6)]
OPEN = {"symbol": "X", "ohlcv": {"close": CLOSES}, "indicators": ["RSI", "MACD"]}
SECONDS = 60.0
READERS = int(os.environ.get("EDGE_READERS", "60"))


def events(raw: bytes) -> list[tuple[str, dict]]:
    parts = [part.split("\n") for part in raw.decode().strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def expected_rsi(edge, bars: list[float]) -> list[float]:
    body = {"ohlcv": {"close": CLOSES + bars}, "indicators": [{"name": "RSI", "last": len(bars)}]}
    found = edge.post("/v1/indicators", body).json
    return found["panels"][0]["indicators"]["indicators"][0]["outputs"][0]["values"]


def test_events_equal_the_full_calls(edge):
    body = {**OPEN, "bars": [{"close": bar} for bar in BARS], "forecast": {"horizon": 3, "quantiles": [0.1, 0.9]}}
    answer = edge.post("/v1/watch", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    (opening, first), *updates, (end, _) = events(answer.raw)
    assert (opening, end) == ("opened", "end")
    assert first["request_id"] == answer.headers["x-request-id"]
    found = [data for _, data in updates]
    assert [one["sequence"] for one in found] == [1, 2, 3, 4, 5, 6]
    assert [one["values"]["RSI"] for one in found] == pytest.approx(expected_rsi(edge, BARS), rel=1e-9)
    assert set(found[0]["values"]) == {"RSI", "MACD.macd", "MACD.macdsignal", "MACD.macdhist"}
    forecast = edge.post("/v1/predict", {"time_series": CLOSES + BARS, "horizon": 3, "quantiles": [0.1, 0.9]}).json[
        "forecasts"
    ][0]["forecast"]
    assert found[-1]["forecast"]["quantiles"] == pytest.approx(forecast["quantiles"], rel=1e-9)


def test_an_updates_forecast_is_that_of_predict_with_warnings_and_phases(edge):
    asked = {"horizon": 3, "quantiles": [0.1, 0.9], "period": 5}
    body = {**OPEN, "ohlcv": {"close": SPLIT[:-1]}, "bars": [{"close": SPLIT[-1]}], "forecast": asked}
    _, (_, update), _ = events(edge.post("/v1/watch", body).raw)
    answer = edge.post("/v1/predict", {"time_series": SPLIT, **asked}).json
    expected = answer["forecasts"][0]["forecast"] | {
        name: answer[name] for name in ("quantile_levels", "model_version")
    }
    found = update["forecast"]
    assert set(found) == set(expected) | {"model"}
    assert "suspected_split" in [one["code"] for one in found["warnings"]]
    assert len(found["coverage"]["phase_measured"]) == 5
    for name in ("warnings", "coverage", "gate", "logs", "context", "quantile_levels", "model_version"):
        assert found[name] == expected[name], name


def test_lines_go_on_while_updates_come_back(edge):
    """A bar is sent only after the update of the bar before has arrived."""
    connection = http.client.HTTPConnection(edge.url.removeprefix("http://"), timeout=60)
    with closing(connection):
        connection.putrequest("POST", "/v1/watch")
        for name, value in {
            "authorization": f"Bearer {edge.key}",
            "content-type": "application/x-ndjson",
            "transfer-encoding": "chunked",
        }.items():
            connection.putheader(name, value)
        connection.endheaders()

        def send(line: object) -> None:
            raw = json.dumps(line).encode() + b"\n"
            connection.send(b"%x\r\n%s\r\n" % (len(raw), raw))

        send(OPEN)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.readline() == b"event: opened\n"
        answer.readline(), answer.readline()
        for at, bar in enumerate(BARS, 1):
            send({"close": bar})
            assert answer.readline() == b"event: update\n"
            assert json.loads(answer.readline().removeprefix(b"data: "))["sequence"] == at
            answer.readline()
        connection.send(b"0\r\n\r\n")
        assert answer.readline() == b"event: end\n"


async def test_sessions_beyond_one_connection_leave_room_for_calls(edge):
    """A gateway takes 100 calls on a connection of the edge."""
    url = edge.url.replace("http", "ws") + "/v1/watch"
    async with AsyncExitStack() as stack, asyncio.timeout(120):
        for _ in range(LIMITS["max_concurrent_streams"] + 10):
            session = await stack.enter_async_context(websockets.connect(url, proxy=None))
            await session.send(json.dumps({"open": OPEN, "api_key": edge.key}))
            assert "opened" in json.loads(await session.recv())
        answer = await asyncio.to_thread(edge.post, "/v1/sentiment", {"text": "Profit rose"})
    assert answer.status == 200


async def test_a_websocket_carries_bars_corrections_and_errors(edge):
    url = edge.url.replace("http", "ws") + "/v1/watch"
    async with asyncio.timeout(SECONDS), websockets.connect(url, proxy=None) as ws:
        await ws.send(json.dumps({"open": OPEN, "api_key": edge.key}))
        assert "request_id" in json.loads(await ws.recv())["opened"]
        await ws.send(json.dumps({"close": BARS[0]}))
        assert json.loads(await ws.recv())["sequence"] == 1
        await ws.send(json.dumps({"correct": {"close": BARS[0] + 5}}))
        corrected = json.loads(await ws.recv())
        assert corrected["sequence"] == 1
        assert corrected["values"]["RSI"] == pytest.approx(expected_rsi(edge, [BARS[0] + 5])[0], rel=1e-9)
        await ws.send(json.dumps({"bar": {"close": "high"}}))
        refused = json.loads(await ws.recv())["error"]
        assert refused["errors"][0]["field"] == "bar"
        with pytest.raises(websockets.ConnectionClosedError):
            await ws.recv()


async def test_a_websocket_without_a_key_or_from_another_site_is_refused(edge, pair):
    url = edge.url.replace("http", "ws") + "/v1/watch"
    async with asyncio.timeout(SECONDS), websockets.connect(url, proxy=None) as ws:
        await ws.send(json.dumps({"open": OPEN, "api_key": "mi_wrong"}))
        assert json.loads(await ws.recv())["error"]["reason"] == "UNAUTHENTICATED"
    for header, *inside in ((edge.key, "mi_other"), (edge.key, edge.key, "mi_other"), ("", "mi_other", edge.key)):
        message = dict(zip(("api_key", "open"), (inside[0], {**OPEN, "api_key": inside[-1]}), strict=True))
        headers = {"authorization": f"Bearer {header}"} if header else {}
        async with asyncio.timeout(SECONDS), websockets.connect(url, proxy=None, additional_headers=headers) as ws:
            await ws.send(json.dumps(message))
            assert "different credentials" in json.loads(await ws.recv())["error"]["detail"]
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await websockets.connect(url, proxy=None, origin="https://other.example")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"close": 6, "finish": True}, "finish"),
        ({"finish": 1}, "finish"),
        ({"close": 6, "correct": {"close": 7}}, "correct"),
        ({"close": 6, "bar": {"close": 7}}, "bar"),
        ({"bar": 6, "bars": [7]}, "bars"),
        ({"bars": 6}, "bars"),
    ],
)
async def test_a_message_with_two_meanings_is_refused_and_no_bar_is_lost(edge, message, field):
    url = edge.url.replace("http", "ws") + "/v1/watch"
    async with asyncio.timeout(SECONDS), websockets.connect(url, proxy=None) as ws:
        await ws.send(json.dumps({"open": OPEN, "api_key": edge.key}))
        await ws.recv()
        await ws.send(json.dumps(message))
        refused = json.loads(await ws.recv())["error"]
    assert [one["field"] for one in refused["errors"]] == [field]


async def test_a_field_beside_the_opening_is_refused(edge):
    url = edge.url.replace("http", "ws") + "/v1/watch"
    async with asyncio.timeout(SECONDS), websockets.connect(url, proxy=None) as ws:
        await ws.send(json.dumps({"open": OPEN, "api_key": edge.key, "close": 6}))
        refused = json.loads(await ws.recv())["error"]
    assert [one["field"] for one in refused["errors"]] == ["close"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ohlcv": {"close": "x"}}, "ohlcv"),
        ({"ohlcv": {"close": [1, "x"]}}, "ohlcv.close"),
        ({"ohlcv": {"klose": [1], "close": [1]}}, "ohlcv.klose"),
        ({"ohlcv": {"close": [1.0] * 10_001}}, "ohlcv.close"),
        ({"times": [1] * 10_001}, "times"),
        ({"indicators": ["RSI"] * 101}, "indicators"),
        ({"indicators": ["NOPE"]}, "indicators[0].name"),
        ({"forecast": {}}, "forecast"),
        ({"forecast": {"horizon": 400}}, "forecast.horizon"),
        ({"delivery": "sometimes"}, "delivery"),
        ({"interval": -1}, "interval"),
        ({"times": ["yesterday"]}, "times"),
        ({"what": 1}, "what"),
    ],
)
def test_an_opening_with_a_mistake_is_a_problem_document(edge, change, field):
    answer = edge.post("/v1/watch", {**OPEN, "bars": [{"close": 1}], **change})
    assert answer.status == 400, answer.raw
    assert answer.json["errors"][0]["field"].startswith(field), answer.json


async def test_readers_that_do_not_read_cost_bounded_memory(edge, pair):
    """Each reader asks for more updates than the buffers on the way hold, and reads none of them."""
    process = psutil.Process(pair.processes[2].pid)
    bars = [{"close": 100 + at % 9} for at in range(3000)]
    levels = [at / 100 for at in range(1, 100)]
    body = json.dumps(
        {**OPEN, "bars": bars, "forecast": {"horizon": 60, "quantiles": levels, "every": 1}, "keep": 100}
    ).encode()
    head = (
        f"POST /v1/watch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    host, port = edge.url.removeprefix("http://").split(":")
    before = process.memory_info().rss
    async with AsyncExitStack() as stack:
        for _ in range(READERS):
            reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            stack.callback(writer.close)
            writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(head + body)
            await writer.drain()
            async with asyncio.timeout(SECONDS):
                first = await reader.readline()
            assert first.startswith(b"HTTP/1.1 200")
        grown = await asyncio.to_thread(settled, process)
        per_reader = (grown - before) / READERS
        # An update is about 110 kB of JSON here, and 3,000 of them are due to each reader.
        assert per_reader < 3e6, f"{per_reader / 1e6:.2f} MB a reader"
        assert edge.post("/v1/sentiment", {"text": "Profit rose"}).status == 200
    # In a thread: the event loop closes the sockets meanwhile.
    await asyncio.to_thread(eventually, lambda: "market_edge_open_watches 0.0" in metrics(pair))


def settled(process: psutil.Process) -> int:
    """The resident memory once two looks a second apart agree to 1 %."""
    last = 0
    for _ in range(60):
        now = process.memory_info().rss
        if abs(now - last) < 0.01 * now:
            return now
        last = now
        time.sleep(1)
    raise AssertionError("the memory goes on growing")


def metrics(pair) -> str:
    from tests.edge.test_calls import edge_metrics

    return edge_metrics(pair)
