"""Limits in all: live sessions leave requests their bytes, openings have a time and a place, keys come first."""

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import websockets
from google.rpc import code_pb2
from grpc_status import rpc_status

from edge import body as bodies
from edge import caller as callers
from edge.admission import SMALL
from edge.body import counts as body_counts
from edge.caller import Caller
from edge.server import Server
from edge.tables import columns
from market_inference.contract.errors import OverloadedError, RemoteError
from market_inference.contract.generated.inference_pb2 import ListModelsResponse
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceServicer
from tests.edge.servers import Start, edges, gateway
from tests.edge.test_watch import BARS, OPEN
from tests.eventually import eventually_async

SECONDS = 60.0
LEAST_BYTES = 1 << 20
LINES = "application/x-ndjson"


@pytest.fixture
async def start(pair) -> AsyncIterator[Start]:
    """Edges of this process, with small limits, before the pair's gateway."""
    usual = {"gateway": pair.target, "max_bytes_in_flight": LEAST_BYTES, "drain_seconds": 0}
    # A body without an end lasts as long as its test.
    async with edges(**usual, body_seconds=250.0) as start:
        yield start


def gauge(server: Server, name: str) -> float | None:
    return server._metrics.registry.get_sample_value(f"market_edge_{name}")


async def send(
    server: Server,
    path: str,
    key: str,
    body: bytes,
    length: int | None = None,
    kind: str = "application/json",
):
    """A request whose body may be shorter than it says; returns the connection."""
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n"
        f"content-length: {len(body) if length is None else length}\r\n\r\n".encode()
    )
    writer.write(body)
    return reader, writer


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(SECONDS):
        return int((await reader.readline()).split()[1])


async def test_live_sessions_leave_requests_their_bytes(start, pair):
    """The bars that came with sessions have a budget of their own: 1 MiB, as that of requests, half for one client."""
    server = await start()
    body = json.dumps({**OPEN, "bars": [{"close": 1}, {"close": 2}], "interval": 60}).encode() + b" " * 400_000
    first, writer = await send(server, "/v1/watch", pair.key, body)
    assert await status(first) == 200
    assert gauge(server, "in_flight_bytes") == 0
    second, other = await send(server, "/v1/watch", pair.key, body)
    assert await status(second) == 429
    # Refused for the empty text, not for the bytes.
    third, another = await send(server, "/v1/sentiment", pair.key, b'{"text": ""}' + b" " * 400_000)
    assert await status(third) == 400
    for one in (writer, other, another):
        one.close()


async def test_a_client_with_all_its_requests_in_work_takes_no_place_from_another(start, pair):
    """Four requests in all: two are one client's, and a client with few is never refused because of the others."""
    server = await start(max_in_flight=4)
    requests = server._admission.requests
    waiting = [await send(server, "/v1/predict", pair.key, b"{", 100) for _ in range(2)]
    await eventually_async(lambda: requests.now == 2)
    refused, more = await send(server, "/v1/predict", pair.key, b"{}")
    async with asyncio.timeout(SECONDS):
        assert b"this client has too many requests" in await refused.readuntil(b"(max 2)")
    with requests.held("Bearer second", 2), requests.held("Bearer third", 2):
        answered, other = await send(server, "/v1/predict", "mi_wrong", b"{}")
        assert await status(answered) == 401  # the gateway's refusal, not the edge's
    for writer in (more, other, *(one for _, one in waiting)):
        writer.close()
    await eventually_async(lambda: requests.now == 0 and not requests.shares)


def caller(key: str) -> Caller:
    return Caller("id", f"Bearer {key}", "")


async def test_invented_keys_have_together_the_places_of_one_client(start, pair):
    admission = (await start(max_in_flight=40))._admission
    await admission.check(caller(pair.key))
    with ExitStack() as places:
        for number in range(20):
            places.enter_context(admission.place(caller(f"mi_invented_{number}")))
        with pytest.raises(OverloadedError, match="max 20"), admission.place(caller("mi_invented_20")):
            pass
        for _ in range(20):
            places.enter_context(admission.place(caller(pair.key)))
    assert not admission.requests.shares


async def test_a_key_has_its_own_places_once_the_gateway_has_accepted_it(start, pair):
    admission = (await start())._admission
    good, wrong = caller(pair.key), caller("mi_wrong")
    with admission.place(good), admission.place(wrong):
        assert admission.requests.shares == {"": 2}
        await admission.check(good)
        with pytest.raises(RemoteError):
            await admission.check(wrong)
        assert admission.requests.shares == {"": 1, good.credential: 1}
    assert not admission.requests.shares
    with admission.place(caller(pair.key)):
        assert admission.requests.shares == {good.credential: 1}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/status", "/v1/timeseries/models"])
async def test_a_key_has_its_own_places_after_a_request_without_a_body(start, pair, path):
    server = await start()
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {pair.key}\r\n\r\n".encode())
    assert await status(reader) == 200
    writer.close()
    good = caller(pair.key)
    with server._admission.place(good):
        assert good.counted_as == good.credential


async def test_a_revoked_key_loses_its_own_places(start):
    admission = (await start())._admission
    revoked = caller("mi_revoked")
    admission._known[admission._digest(revoked)] = 0.0
    with pytest.raises(RemoteError):
        await admission.check(revoked)
    with admission.place(revoked):
        assert admission.requests.shares == {"": 1}


async def test_bodies_of_a_client_leave_another_its_bytes(start, pair):
    """The budget is 1 MiB, and half of it is one client's."""
    server = await start()
    held = server._admission.bytes
    _, writer = await send(server, "/v1/predict", pair.key, b" " * 400_000, 500_000)
    await eventually_async(lambda: held.now == 400_000)
    refused, more = await send(server, "/v1/predict", pair.key, b" " * 200_000)
    async with asyncio.timeout(SECONDS):
        assert b"this client has too many bytes" in await refused.readuntil(b"in work")
    for one in (writer, more):
        one.close()
    await eventually_async(lambda: held.now == 0)
    small = b'{"text": ""}' + b" " * 100_000
    with held.held("Bearer second", LEAST_BYTES // 2), held.held("Bearer third", LEAST_BYTES // 2):
        answered, other = await send(server, "/v1/sentiment", pair.key, small)
        assert await status(answered) == 400  # for the empty text
    other.close()


@pytest.mark.parametrize(
    "length",
    ["content-length: 600000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n927c0\r\n"],
    ids=["known", "chunked"],
)
async def test_a_body_above_the_share_of_a_client_is_too_large(start, pair, length):
    """OVERLOADED would let the client try again for ever."""
    server = await start()
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/predict HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {pair.key}\r\n{length}"
    writer.write(head.encode() + b" " * 600_000)
    assert await status(reader) == 413
    writer.close()


async def test_sessions_of_a_client_leave_another_its_place(start, pair):
    server = await start(max_watches=4)
    count = server._admission.watches
    with count.held(f"Bearer {pair.key}", 2), pytest.raises(websockets.InvalidStatus, match="429"):
        await connect(server, pair.key)
    with count.held("Bearer second", 2), count.held("Bearer third", 2):
        async with connect(server, pair.key) as ws:
            await opened(ws, OPEN)


async def test_an_opening_without_a_key_that_is_huge_once_parsed_is_refused_before(start, pair):
    server = await start(max_bytes_in_flight=128 << 20)
    opening = json.dumps({"open": OPEN, "api_key": pair.key})[:-1]
    async with asyncio.timeout(SECONDS), connect(server) as ws:
        await ws.send(opening + ', "x": [' + "{}," * 30_000 + "{}]}")
        assert json.loads(await ws.recv())["error"]["reason"] == "REQUEST_TOO_LARGE"
    async with asyncio.timeout(SECONDS), connect(server, pair.key) as ws:
        await ws.send(opening + ', "x": [' + "{}," * 30_000 + "{}]}")
        assert json.loads(await ws.recv())["error"]["reason"] == "INVALID_REQUEST"


async def test_an_opening_of_lines_that_does_not_arrive_is_given_up(start, pair):
    server = await start(body_seconds=0.5)
    reader, writer = await send(server, "/v1/watch", pair.key, b"{", 100, LINES)
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
    _, writer = await send(server, "/v1/watch", pair.key, b"{", 100, LINES)
    await eventually_async(lambda: gauge(server, "open_watches") == 1)
    refused, other = await send(server, "/v1/watch", pair.key, b"{", 100, LINES)
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


@pytest.mark.parametrize("kind", ["application/json", LINES])
async def test_a_client_that_leaves_its_session_is_no_bug(start, pair, caplog, kind):
    server = await start()
    line = json.dumps({**OPEN, "bars": [{"close": 1}, {"close": 2}], "interval": 0 if kind == LINES else 60}).encode()
    reader, writer = await send(
        server, "/v1/watch", pair.key, line + b"\n", len(line) + (2 if kind == LINES else 1), kind
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
    reader, writer = await send(server, "/v1/watch", pair.key, "\n".join(lines).encode(), kind=LINES)
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
    servicer = Busy()
    async with gateway(servicer) as address:
        server = await start(gateway=address)
        for _ in range(2):
            reader, writer = await send(server, "/v1/predict", "stranger", b'{"time_series": [1, 2], "horizon": 1}')
            assert await status(reader) == 429
            writer.close()
        assert servicer.calls == ["ListModels", "ListModels"]


class Asked(MarketInferenceServiceServicer):
    """Answers ListModels once `known` is set, and counts the calls."""

    def __init__(self) -> None:
        self.known = asyncio.Event()
        self.calls = 0

    async def ListModels(self, request, context):  # noqa: N802 -- the name in the contract
        self.calls += 1
        await self.known.wait()
        return ListModelsResponse()


async def test_the_gateway_is_asked_once_for_all_requests_with_a_new_key(start):
    servicer = Asked()
    async with gateway(servicer) as address:
        server = await start(gateway=address)
        requests = server._admission.requests
        waiting = [await send(server, "/v1/sentiment", "key", b"[]") for _ in range(8)]
        await eventually_async(lambda: requests.now == 8 and servicer.calls)
        waiting[0][1].close()
        servicer.known.set()
        assert [await status(reader) for reader, _ in waiting[1:]] == [400] * 7
        assert servicer.calls == 1
        for _, writer in waiting:
            writer.close()


async def test_invented_keys_take_the_turns_of_their_address(start, pair):
    """Requests and WebSockets alike: an invented key for each has no turns of its own."""
    server, address = await start(), ("10.0.0.7", 5000)
    reader, writer = await send(server, "/v1/sentiment", pair.key, b'{"text": "Shares rise"}')
    assert await status(reader) == 200
    writer.close()
    keys = {key: callers.read([(b"x-api-key", key.encode())], "") for key in (pair.key, "invented", "another")}
    turns = {key: server._admission.in_turn(one, address) for key, one in keys.items()}
    assert turns == {pair.key: f"Bearer {pair.key}", "invented": "10.0.0.7", "another": "10.0.0.7"}
    assert server._admission.in_turn(None, address) == "10.0.0.7"
    assert server._admission.in_turn(None, None) == ""


async def test_requests_without_a_key_delay_no_answer_of_another_client(start, pair):
    """One of 400 requests begins in a turn of the event loop, and another client's request comes second."""
    server = await start()
    host, _, port = server.address.rpartition(":")
    text = b'{"text": "Shares rise"}'
    for _ in range(2):  # the gateway accepts the key in the first one
        reader, writer = await send(server, "/v1/sentiment", pair.key, text)
        assert await status(reader) == 200
        writer.close()
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(400)]
    for _, writer in connections:
        writer.write(b"POST /v1/sentiment HTTP/1.1\r\nhost: edge\r\ncontent-length: 0\r\n\r\n")
    refused = [asyncio.create_task(status(reader)) for reader, _ in connections]
    reader, writer = await send(server, "/v1/sentiment", pair.key, text)
    assert await status(reader) == 200
    assert sum(task.done() for task in refused) < 300
    assert set(await asyncio.gather(*refused)) <= {401, 429}
    for _, one in [*connections, (reader, writer)]:
        one.close()


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
    _, writer = await send(server, "/v1/watch", pair.key, opening + b"1" * 300_000, 1 << 30, LINES)
    await eventually_async(lambda: replays.now == 300_000)
    refused, other = await send(server, "/v1/watch", pair.key, opening + b"1" * 300_000, 1 << 30, LINES)
    async with asyncio.timeout(SECONDS):
        assert b"this client has too many bytes of live sessions' bars" in await refused.readuntil(b"in work")
    bars = json.dumps({"bars": [{"close": 1}] * 3_000}).encode() + b"\n"
    values, another = await send(server, "/v1/watch", pair.key, opening + bars, 1 << 30, LINES)
    async with asyncio.timeout(SECONDS):
        assert b"this client has too many bytes of live sessions' bars" in await values.readuntil(b"in work")
    for one in (writer, other, another):
        one.close()
    await eventually_async(lambda: replays.now == 0)


WAITING = {**OPEN, "bars": [{"close": 1}, {"close": 2}], "interval": 60}
"""An opening whose session reads no further message for a minute."""


async def opened(ws, opening: dict[str, object]) -> None:
    await ws.send(json.dumps(opening))
    assert "opened" in json.loads(await ws.recv())


async def refused(ws, caplog) -> None:
    """The connection is closed with TRY_AGAIN_LATER, and the log has a line at once."""
    async with asyncio.timeout(SECONDS):
        await ws.wait_closed()
    assert ws.close_code == 1013
    assert [one.levelname for one in caplog.records if one.getMessage().startswith("websocket closed")] == ["WARNING"]


async def test_half_of_a_message_counts_and_the_share_of_a_key_is_half(start, pair, caplog):
    """The budget is 1 MiB: a connection alone may have more than half of it, another one of the key is closed."""
    server = await start()
    held = server._admission.messages
    over = asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "1" * 600_000
        await over.wait()

    async with connect(server, pair.key) as first, connect(server, pair.key) as second:
        sending = asyncio.create_task(first.send(fragments()))
        await eventually_async(lambda: held.now >= 600_000)
        late = asyncio.create_task(second.send(fragments()))
        await refused(second, caplog)
        for task in (sending, late):
            task.cancel()
        await asyncio.wait({sending, late})
        first.transport.abort()
    await eventually_async(lambda: held.now == 0 and not held.shares)
    told = {"route": "/v1/watch", "reason": "OVERLOADED"}
    read = server._metrics.registry.get_sample_value
    assert await eventually_async(lambda: read("market_edge_refusals_total", told)) == 1
    assert "bug" not in [one.message for one in caplog.records]


async def test_a_whole_message_counts_until_the_session_reads_it(start, pair, caplog):
    server = await start()
    held = server._admission.messages
    async with connect(server, pair.key) as first, connect(server, pair.key) as second:
        for ws in (first, second):
            await opened(ws, WAITING)
        await first.send("1" * 600_000)
        await eventually_async(lambda: held.now >= 600_000)
        await second.send("1" * 600_000)
        await refused(second, caplog)
        assert 600_000 <= held.now < 700_000
        first.transport.abort()


async def test_a_text_counts_with_the_memory_of_its_letters(start, pair):
    """One emoji, and every letter takes four bytes."""
    server = await start()
    held = server._admission.messages
    async with connect(server, pair.key) as ws:
        await opened(ws, WAITING)
        await ws.send("1" * 100_000 + "\N{DUCK}")
        await eventually_async(lambda: held.now >= 400_000)
        ws.transport.abort()


async def test_small_messages_never_end_a_session_and_stay_small(start, pair):
    """The budget is full, by another key and by this one, and the messages come faster than the session reads."""
    server = await start()
    held, count = server._admission.messages, 3_000
    others = [held.of("Bearer other"), held.of(f"Bearer {pair.key}")]
    others[1].set(unread=LEAST_BYTES // 2 - 1)
    others[0].set(unread=LEAST_BYTES // 2)
    small = b"\x81\x81\0\0\0\0\x31"  # a message of one digit
    most = []
    async with asyncio.timeout(SECONDS), connect(server, pair.key) as ws, connect(server, pair.key) as waiting:
        await opened(waiting, WAITING)
        waiting.transport.write(small * 50_000)
        await opened(ws, OPEN)
        ws.transport.write(small * count)
        for at in range(count):
            assert json.loads(await ws.recv())["sequence"] == at + 1
            most.append(held.now - LEAST_BYTES + 1)
        assert waiting.close_code is None
        for one in (ws, waiting):
            one.transport.abort()
    assert 0 < max(most) <= 2 * SMALL


@pytest.mark.parametrize("owner", ["other", "same"])
async def test_a_full_budget_of_bars_ends_no_session_with_small_lines(start, pair, owner):
    server = await start()
    replays = server._admission.replays
    # A body without an end: the first bar comes once the session is open.
    reader, writer = await send(server, "/v1/watch", pair.key, json.dumps(OPEN).encode() + b"\n", 1 << 30, LINES)
    async with asyncio.timeout(SECONDS):
        await reader.readuntil(b"event: opened")
        with replays.of("Bearer other" if owner == "other" else f"Bearer {pair.key}") as full:
            full.set(opening=LEAST_BYTES)
            for _ in range(3):
                writer.write(json.dumps({"close": 101, "open": 100, "high": 102, "low": 99}).encode() + b"\n")
                await reader.readuntil(b"event: update")
            writer.write(b'{"bars": [' + b"1," * 2_000 + b"1]}\n")
            await reader.readuntil(b"OVERLOADED")
    writer.close()
    await eventually_async(lambda: replays.now == 0 and not replays.shares)


async def test_a_large_line_above_the_budget_closes_a_websocket_with_try_again_later(start, pair):
    server = await start()
    async with asyncio.timeout(SECONDS), connect(server, pair.key) as ws:
        await opened(ws, OPEN)
        with server._admission.replays.of("Bearer other") as full:
            full.set(opening=LEAST_BYTES)
            await ws.send('{"bars": [' + "1," * 2_000 + "1]}")
            assert json.loads(await ws.recv())["error"]["reason"] == "OVERLOADED"
            await ws.wait_closed()
    assert ws.close_code == 1013


@pytest.mark.parametrize(("path", "kind"), [("/v1/bars", "csv"), ("/v1/indicators", "csv"), ("/v1/predict", "json")])
async def test_long_bodies_are_weighed_beside_the_event_loop(start, pair, monkeypatch, path, kind):
    threads = []

    def seen(raw: bytes, marks: bytes) -> list[int]:
        threads.append(threading.get_ident())
        return body_counts(raw, marks)

    monkeypatch.setattr(bodies, "counts", seen)
    server = await start(max_bytes_in_flight=128 << 20)
    content = b"close\n" + b"1\n" * 140_000 if kind == "csv" else b'{"text": "' + b"x" * 400_000 + b'"}'
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {pair.key}\r\n"
        f"content-type: {'text/csv' if kind == 'csv' else 'application/json'}\r\n"
        f"content-length: {len(content)}\r\n\r\n".encode()
    )
    writer.write(content)
    assert await status(reader) in (200, 400)
    assert threads
    assert threading.get_ident() not in threads
    writer.close()


TABLE = b"date,close\n" + b"".join(b"2024-01-%02d,%d\n" % (day, 100 + day % 3) for day in range(1, 31))


async def test_the_times_of_a_table_are_written_beside_the_event_loop(start, pair, monkeypatch):
    threads = []

    def seen(times) -> list[str]:
        threads.append(threading.get_ident())
        return iso(times)

    iso = columns.iso
    monkeypatch.setattr(columns, "iso", seen)
    server = await start()
    reader, writer = await send(server, "/v1/indicators", pair.key, TABLE, kind="text/csv")
    assert await status(reader) == 200
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    writer.close()


@pytest.mark.parametrize("size", [0, 100, 9_000, 700_001])
def test_counts_are_those_of_bytes(size):
    raw = random.Random(size).randbytes(size)
    assert bodies.counts(raw, b'{[,"') == [raw.count(mark) for mark in b'{[,"']
    assert bodies.counts(bytearray(raw), b"\n\r") == [raw.count(mark) for mark in b"\n\r"]


@pytest.mark.parametrize("step", [1, 2, 7, 1_000])
async def test_lines_are_found_in_parts_of_any_size(start, step):
    raw = b'{"a":1}\n\n  \n12\r\n"abc"\n' * 9 + b"last"
    server = await start()

    class Body:
        class state:  # noqa: N801 -- the name in starlette
            caller = Caller("id", "", "")

        async def stream(self) -> AsyncIterator[bytes]:
            for at in range(0, len(raw), step):
                yield raw[at : at + step]

    async def known(caller: Caller) -> None:
        """The key."""

    server._admission.check = known
    reader = bodies.Bodies(server._config, server._admission)
    with server._admission.replays.of("") as held:
        found = [line async for line in reader.lines(Body(), held)]
    assert found == [line for line in raw.split(b"\n") if line.strip()]


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
