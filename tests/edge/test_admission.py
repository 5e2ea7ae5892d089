"""Limits in all: live sessions leave requests their bytes, openings have a time and a place, keys come first."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
import websockets
from google.rpc import code_pb2
from grpc_status import rpc_status

from edge.config import Config
from edge.server import Server
from market_inference.contract.errors import OverloadedError
from market_inference.contract.generated.inference_pb2_grpc import (
    MarketInferenceServiceServicer,
    add_MarketInferenceServiceServicer_to_server,
)
from tests.edge.test_watch import BARS, OPEN
from tests.eventually import eventually_async

SECONDS = 60.0
LEAST_BYTES = 1 << 20
Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start(pair) -> AsyncIterator[Start]:
    """Edges of this process, with small limits, before the pair's gateway."""
    servers = []

    async def made(**settings: object) -> Server:
        own = {"gateway": pair.target, "max_bytes_in_flight": LEAST_BYTES, "drain_seconds": 0} | settings
        servers.append(server := Server(Config(listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", **own)))
        await server.start()
        return server

    yield made
    for server in servers:
        await server.stop()


def gauge(server: Server, name: str) -> float | None:
    return server._metrics.registry.get_sample_value(f"market_edge_{name}")


async def send(server: Server, path: str, key: str, body: bytes, length: int | None = None, kind: str = "json"):
    """A request whose body may be shorter than it says; returns the connection."""
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {key}\r\ncontent-type: application/{kind}\r\n"
        f"content-length: {len(body) if length is None else length}\r\n\r\n".encode()
    )
    writer.write(body)
    return reader, writer


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(SECONDS):
        return int((await reader.readline()).split()[1])


async def test_live_sessions_leave_requests_their_bytes(start, pair):
    """The bars that came with sessions have a budget of their own: 1 MiB, as that of requests."""
    server = await start()
    body = json.dumps({**OPEN, "bars": [{"close": 1}, {"close": 2}], "interval": 60}).encode() + b" " * 600_000
    first, writer = await send(server, "/v1/watch", pair.key, body)
    assert await status(first) == 200
    assert gauge(server, "in_flight_bytes") == 0
    second, other = await send(server, "/v1/watch", pair.key, body)
    assert await status(second) == 429
    # Refused for the empty text, not for the bytes.
    third, another = await send(server, "/v1/sentiment", pair.key, b'{"text": ""}' + b" " * 600_000)
    assert await status(third) == 400
    for one in (writer, other, another):
        one.close()


async def test_an_opening_of_lines_that_does_not_arrive_is_given_up(start, pair):
    server = await start(body_seconds=0.5)
    reader, writer = await send(server, "/v1/watch", pair.key, b"{", 100, "x-ndjson")
    assert await status(reader) == 408
    writer.close()
    await eventually_async(lambda: gauge(server, "open_watches") == 0)


async def test_a_body_that_does_not_arrive_is_given_up(start, pair):
    server = await start(body_seconds=0.5)
    reader, writer = await send(server, "/v1/sentiment", pair.key, b"{", 100)
    async with asyncio.timeout(SECONDS):
        answer = await reader.readuntil(b"BODY_TOO_SLOW")
    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_session_counts_before_its_opening_arrives(start, pair):
    server = await start(max_watches=1)
    _, writer = await send(server, "/v1/watch", pair.key, b"{", 100, "x-ndjson")
    await eventually_async(lambda: gauge(server, "open_watches") == 1)
    refused, other = await send(server, "/v1/watch", pair.key, b"{", 100, "x-ndjson")
    assert await status(refused) == 429
    with pytest.raises(websockets.InvalidStatus, match="429"):
        await connect(server, pair.key)
    for one in (writer, other):
        one.close()
    await eventually_async(lambda: gauge(server, "open_watches") == 0)


def connect(server: Server, key: str = ""):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return websockets.connect(f"ws://{server.address}/v1/watch", proxy=None, additional_headers=headers)


async def test_a_wrong_key_in_a_websockets_header_is_refused_before_the_accept(start):
    server = await start()
    with pytest.raises(websockets.InvalidStatus, match="401"):
        await connect(server, "mi_wrong")


async def test_few_websockets_wait_for_their_key(start, pair):
    """Each may have a message of 1 MiB in memory, and the budget is 1 MiB."""
    server = await start()
    async with asyncio.timeout(SECONDS), connect(server) as ws:
        with pytest.raises(websockets.InvalidStatus, match="429"):
            await connect(server)
        await ws.send(json.dumps({"open": OPEN, "api_key": pair.key}))
        assert "opened" in json.loads(await ws.recv())
        assert gauge(server, "open_watches") == 1
        async with connect(server) as other:
            await other.send(json.dumps({"open": OPEN}))
            assert json.loads(await other.recv())["error"]["reason"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("kind", ["json", "x-ndjson"])
async def test_a_client_that_leaves_its_session_is_no_bug(start, pair, caplog, kind):
    server = await start()
    line = json.dumps({**OPEN, "bars": [{"close": 1}, {"close": 2}], "interval": 60 if kind == "json" else 0}).encode()
    reader, writer = await send(
        server, "/v1/watch", pair.key, line + b"\n", len(line) + (1 if kind == "json" else 2), kind
    )
    async with asyncio.timeout(SECONDS):
        await reader.readuntil(b"event: opened")
    writer.close()
    await eventually_async(lambda: gauge(server, "open_watches") == 0)
    left = {"route": "/v1/watch", "reason": "CANCELLED"}
    read = server._metrics.registry.get_sample_value
    assert await eventually_async(lambda: read("market_edge_refusals_total", left)) == 1
    assert "bug" not in [record.message for record in caplog.records]


async def test_bars_of_the_opening_come_before_further_lines(start, pair):
    server = await start()
    lines = [json.dumps({**OPEN, "bars": [{"close": BARS[0]}]}), json.dumps({"close": BARS[1]})]
    reader, writer = await send(server, "/v1/watch", pair.key, "\n".join(lines).encode(), kind="x-ndjson")
    async with asyncio.timeout(SECONDS):
        raw = await reader.readuntil(b"event: end")
    assert raw.count(b"event: update") == 2
    writer.close()


class Busy(MarketInferenceServiceServicer):
    """Refuses every call for its load, and counts the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def ListModels(self, request, context):  # noqa: N802 -- the name in the contract
        self.calls.append("ListModels")
        refused = OverloadedError("full", retry_after=1.0).status("id")
        assert refused.code == code_pb2.RESOURCE_EXHAUSTED
        await context.abort_with_status(rpc_status.to_status(refused))

    async def Predict(self, request, context):  # noqa: N802
        self.calls.append("Predict")


async def test_a_full_gateway_makes_no_key_known(start):
    gateway, servicer = grpc.aio.server(), Busy()
    add_MarketInferenceServiceServicer_to_server(servicer, gateway)
    port = gateway.add_insecure_port("127.0.0.1:0")
    await gateway.start()
    server = await start(gateway=f"127.0.0.1:{port}")
    for _ in range(2):
        reader, writer = await send(server, "/v1/predict", "stranger", b'{"time_series": [1, 2], "horizon": 1}')
        assert await status(reader) == 429
        writer.close()
    assert servicer.calls == ["ListModels", "ListModels"]
    await gateway.stop(0)


@pytest.mark.parametrize(
    "body",
    [
        b'{"series": [' + b"{}," * 12_000 + b"{}]}",
        b'{"time_series": [' + b"[]," * 20_000 + b"[]]}",
        b'{"time_series": [' + b"0," * 40_000 + b"0]}",
        b'{"texts": [' + b'"",' * 20_000 + b'""]}',
    ],
    ids=["objects", "lists", "numbers", "texts"],
)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/watch", "/v1/timeseries/forecast"])
async def test_a_body_that_is_huge_once_parsed_is_refused_before(start, pair, body, path):
    """The budget is 1 MiB, and no body here has a tenth of it."""
    server = await start()
    reader, writer = await send(server, path, pair.key, body)
    assert await status(reader) == 413
    assert gauge(server, "in_flight_bytes") == 0
    writer.close()


async def test_lines_of_a_session_count_until_their_turn(start, pair):
    """The budget is 1 MiB, and half of it is one client's: two such sessions have no room."""
    server = await start()
    replays = server._admission.replays
    opening = json.dumps(OPEN).encode() + b"\n"
    _, writer = await send(server, "/v1/watch", pair.key, opening + b"1" * 300_000, 1 << 30, "x-ndjson")
    await eventually_async(lambda: replays.now == 300_000)
    refused, other = await send(server, "/v1/watch", pair.key, opening + b"1" * 300_000, 1 << 30, "x-ndjson")
    async with asyncio.timeout(SECONDS):
        assert b"this client has too many bytes of live sessions' bars" in await refused.readuntil(b"in work")
    bars = json.dumps({"bars": [{"close": 1}] * 3_000}).encode() + b"\n"
    values, another = await send(server, "/v1/watch", pair.key, opening + bars, 1 << 30, "x-ndjson")
    async with asyncio.timeout(SECONDS):
        assert b"this client has too many bytes of live sessions' bars" in await values.readuntil(b"in work")
    for one in (writer, other, another):
        one.close()
    await eventually_async(lambda: replays.now == 0)


async def test_messages_that_a_websocket_does_not_end_or_the_session_does_not_read_count(start, pair):
    """The budget is 1 MiB: another connection with as much as the first one is closed."""
    server = await start()
    held = server._admission.messages
    over = asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "1" * 600_000
        await over.wait()

    async with connect(server, pair.key) as first, connect(server, pair.key) as second:
        await asyncio.sleep(0)
        sending = asyncio.create_task(first.send(fragments()))
        await eventually_async(lambda: held.now >= 600_000)
        late = asyncio.create_task(second.send(fragments()))
        async with asyncio.timeout(SECONDS):
            await second.wait_closed()
        for task in (sending, late):
            task.cancel()
        await asyncio.wait({sending, late})
        first.transport.abort()
    await eventually_async(lambda: held.now == 0)
    async with connect(server, pair.key) as third:
        await third.send(json.dumps(OPEN))
        third.transport.write(b"\x81\x81\0\0\0\0\x31" * 50_000)  # as many messages, of one digit each
        async with asyncio.timeout(SECONDS):
            await third.wait_closed()
        assert third.close_code == 1006  # without a farewell
    await eventually_async(lambda: held.now == 0)


async def test_a_binary_message_is_refused(start, pair):
    server = await start()
    async with asyncio.timeout(SECONDS), connect(server, pair.key) as ws:
        await ws.send(b"\xff\xfe")
        assert json.loads(await ws.recv())["error"]["reason"] == "INVALID_REQUEST"
    async with asyncio.timeout(SECONDS), connect(server, pair.key) as ws:
        await ws.send(json.dumps({"open": OPEN}))
        assert "opened" in json.loads(await ws.recv())
        await ws.send(b"\xff\xfe")
        assert json.loads(await ws.recv())["error"]["reason"] == "INVALID_REQUEST"


async def test_no_redirect_names_the_host_of_a_request(start, pair):
    server = await start()
    reader, writer = await send(server, "/v1/predict/", pair.key, b"{}")
    assert await status(reader) == 404
    writer.close()
