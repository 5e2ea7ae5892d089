"""Limits of a connection before a request reaches the application: a real uvicorn server, real sockets."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from runtime import http_connection, loop
from runtime.http_connection import HEADER_BYTES, HEADERS, HttpConnection
from runtime.http_server import HttpServer, listening
from tests.eventually import eventually_async

SECONDS = 60.0


async def echo(scope, receive, send) -> None:
    """Answers with path, headers and body; on /early without reading the body."""
    body = b""
    if scope["path"] == "/early":
        http_connection.HEADER_SECONDS = 0.2  # now: on a busy machine, the head of a request takes some time, too
    while scope["path"] != "/early":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    answer = json.dumps({"path": scope["path"], "headers": headers, "body": body.decode()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def served(app, http=HttpConnection, **settings) -> AsyncIterator[int]:
    listener = listening("127.0.0.1:0", backlog=16)
    server = HttpServer(uvicorn.Config(app, http=http, log_config=None, lifespan="off", **settings))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.up.wait()
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with served(echo) as port:
        yield port


class Client:
    """A connection as a hostile client has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict]:
        """Status and JSON of the next answer; an empty object where the body is text."""
        async with asyncio.timeout(SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await self.reader.readexactly(length)
        return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else {}

    async def ended(self) -> bool:
        """Whether the server has closed the connection, once the server has."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def connected(port) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
    yield client
    client.writer.close()


@pytest.fixture
async def client(port) -> AsyncIterator[Client]:
    async with connected(port) as client:
        yield client


POST = b"POST /x HTTP/1.1\r\nhost: a\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"


@pytest.mark.parametrize(
    "start",
    [b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\nx"],
    ids=["url", "first", "value", "name"],
)
@pytest.mark.parametrize("unit", [b"a" * 4096, b"a:\r\n" * 1024], ids=["one", "many"])
async def test_endless_headers_are_refused(client, start, unit):
    sent = 0
    await client.send(start)
    while not client.reader.at_eof() and sent < 40 * HEADER_BYTES:
        try:
            await client.send(unit)
        except ConnectionError:
            break
        sent += len(unit)
        await asyncio.sleep(0)
    assert await client.ended() or client.reader.at_eof()
    # The socket's buffers take some more than the server reads.
    assert sent < 40 * HEADER_BYTES


async def test_headers_up_to_the_limit_are_taken(client):
    many = b"".join(b"x-%d: 1\r\n" % place for place in range(HEADERS - 2))
    await client.send(POST + many + b"content-length: 2\r\n\r\nhi")
    status, found = await client.answer()
    assert status == 200
    assert len(found["headers"]) == HEADERS
    assert found["body"] == "hi"


@pytest.mark.parametrize(
    "extra", [b"x: 1\r\n" * HEADERS, b"x: %b\r\n" % (b"a" * HEADER_BYTES)], ids=["number", "bytes"]
)
async def test_more_headers_are_refused_by_status(client, extra):
    await client.send(POST + extra + b"\r\n")
    assert await client.answer() == (431, {})
    assert await client.ended()


@pytest.mark.parametrize("path", [b"/early", b"/x"])
@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        (b"1.1", b"", 400),
        (b"1.1", b"host: a\r\nhost: a\r\n", 400),
        (b"1.1", b"host: a\r\nx: 1\r\nHost: b\r\n", 400),
        (b"1.0", b"host: a\r\nhost: b\r\n", 400),
        (b"1.1", b"connection: upgrade\r\nupgrade: h2c\r\n", 400),
        (b"1.1", b"host: a\r\nhost: b\r\nconnection: upgrade\r\nupgrade: websocket\r\n", 400),
        (b"1.0", b"host: a\r\ntransfer-encoding: chunked\r\n", 400),
        (b"1.1", b"host: a\r\ntransfer-encoding: xchunked\r\n", 501),
        (b"1.1", b"host: a\r\ntransfer-encoding: gzip\r\n", 501),
        (b"1.1", b"host: a\r\ntransfer-encoding: identity\r\n", 501),
        (b"1.1", b"host: a\r\ntransfer-encoding: gzip, chunked\r\n", 501),
        (b"1.1", b"host: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 501),
        (b"1.1", b"host: a\r\ntransfer-encoding: \r\n", 400),
    ],
)
async def test_headers_that_servers_read_in_two_ways_are_refused_before_the_request_begins(
    client, path, version, headers, status
):
    await client.send(b"POST %b HTTP/%b\r\n%b\r\n" % (path, version, headers))
    assert await client.answer() == (status, {})
    assert await client.ended()


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        (b"1.0", b"content-length: 0\r\n"),
        (b"1.1", b"host: \r\ncontent-length: 0\r\n"),
        (b"1.1", b"HOST: a\r\nTransfer-Encoding: Chunked\r\n"),
    ],
)
async def test_headers_that_have_one_meaning_are_taken(client, version, headers):
    body = b"0\r\n\r\n" if b"Chunked" in headers else b""
    await client.send(b"POST /x HTTP/%b\r\n%b\r\n%b" % (version, headers, body))
    assert (await client.answer())[0] == 200


async def test_the_limit_of_headers_is_for_each_request(client):
    for _ in range(3):
        await client.send(POST + b"x: %b\r\n" % (b"a" * (HEADER_BYTES - 256)) + b"content-length: 0\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_trailers_do_not_become_headers(client):
    await client.send(CHUNKED + b"authorization: Bearer other\r\nx-request-id: other\r\n\r\n")
    status, found = await client.answer()
    assert (status, found["body"]) == (200, "hello")
    assert [name for name, _ in found["headers"]] == ["host", "transfer-encoding"]


@pytest.mark.parametrize("trailer", [b"a:\r\n" * 300, b"x: " + b"a" * (16 * HEADER_BYTES)], ids=["number", "bytes"])
async def test_endless_trailers_end_the_connection(client, trailer):
    await client.send(CHUNKED + trailer)
    assert await client.ended()


async def test_a_large_body_is_no_header(client):
    body = b"a" * (8 * HEADER_BYTES)
    await client.send(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
    status, found = await client.answer()
    assert (status, len(found["body"])) == (200, len(body))


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"POST /x HT", POST, POST + b"x: "])
async def test_headers_have_a_time(port, monkeypatch, sent):
    monkeypatch.setattr(http_connection, "HEADER_SECONDS", 0.2)
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    await client.send(sent)
    assert await client.ended()
    client.writer.close()


async def test_dripping_headers_gain_no_time(port, monkeypatch):
    monkeypatch.setattr(http_connection, "HEADER_SECONDS", 0.3)
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    await client.send(POST + b"x: ")

    async def drip() -> None:
        while not client.reader.at_eof():
            await client.send(b"a")
            await asyncio.sleep(0.02)

    async with asyncio.timeout(SECONDS):
        with pytest.raises(ConnectionError):
            await asyncio.gather(drip(), client.reader.read())
            raise ConnectionError
    client.writer.close()


@pytest.mark.parametrize("rest", [b"", b"a" * 500, b"a" * 998, b"a" * 998 + b"POST"])
async def test_the_rest_of_a_body_has_a_time_after_the_answer(port, monkeypatch, rest):
    monkeypatch.setattr(http_connection, "HEADER_SECONDS", 60.0)  # and the old value at the end
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    await client.send(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nhi")
    assert (await client.answer())[0] == 200
    await client.send(rest)
    assert await client.ended()
    client.writer.close()


@pytest.mark.parametrize(
    ("kind", "connection"),
    [(b"h2c", b"Upgrade, HTTP2-Settings"), (b"websocket", b"upgrade"), (b"other", b"keep-alive, Upgrade")],
)
@pytest.mark.parametrize("split", [False, True])
async def test_an_upgrade_that_is_not_offered_is_ignored(client, kind, connection, split):
    head = POST + b"connection: %b\r\nupgrade: %b\r\nhttp2-settings: AAMA\r\n" % (connection, kind)
    body = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
    head += b"content-length: %d\r\n\r\n" % len(body)
    if split:
        await client.send(head)
        await client.send(body)
    else:
        await client.send(head + body)
    status, found = await client.answer()
    assert (status, found["path"], found["body"]) == (200, "/x", body.decode())
    assert not {"upgrade", "http2-settings"} & {name for name, _ in found["headers"]}
    await client.send(POST + b"content-length: 2\r\n\r\nhi")
    assert (await client.answer())[1]["body"] == "hi"


async def test_many_upgrades_sent_at_once_are_answered_each(client):
    asked = b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    await client.send(asked * 3000)
    for _ in range(3000):
        assert (await client.answer())[0] == 200


async def test_connect_is_refused(client):
    await client.send(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n")
    assert await client.answer() == (400, {})
    assert await client.ended()


async def test_requests_sent_at_once_are_answered_in_order(client):
    await client.send(b"".join(POST + b"content-length: 1\r\n\r\n%d" % place for place in range(9)))
    assert [(await client.answer())[1]["body"] for _ in range(9)] == [str(place) for place in range(9)]


class Held:
    """Answers as echo() does, and waits before the answer on /held; `gone`: the client of that request has left."""

    def __init__(self) -> None:
        self.begun, self.released, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send) -> None:
        if scope["path"] == "/held":
            self.begun.set()
            watching = asyncio.create_task(self.watch(receive))
            await self.released.wait()
            watching.cancel()

            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}

        await echo(scope, receive, send)

    async def watch(self, receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


def cycles() -> int:
    return sum(type(one) is RequestResponseCycle for one in gc.get_objects())


def chunked(body: bytes, size: int, path: bytes = b"/x", trailers: bytes = b"") -> bytes:
    """A POST with the body in chunks of so many bytes."""
    parts = [body[at : at + size] for at in range(0, len(body), size)] + [b""]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts[:-1]]
    head = b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" % path
    return b"".join([head, *chunks, b"0\r\n", trailers, b"\r\n"])


@pytest.mark.parametrize(
    "content",
    [b"a", b"\n", b"\n0", b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"1.5,2\r\n" * 200 + b"0.5,2\r\n"],
    ids=["one", "lines", "zeros", "request", "table"],
)
@pytest.mark.parametrize("size", [1, 7, 1022, 1024, 65_533, 1 << 20])
async def test_a_chunked_body_arrives_whole_before_the_next_request(client, content, size):
    body = content * ((4_000 if size < 1000 else 300_000) // len(content))
    await client.send(chunked(body, size) + POST + b"content-length: 2\r\n\r\nhi")
    assert (await client.answer())[1]["body"] == body.decode()
    assert (await client.answer())[1]["body"] == "hi"


async def test_the_content_of_a_chunk_is_parsed_in_large_pieces(client, monkeypatch):
    """Pieces of 1 KiB took 4 ms of CPU time for 1 MB."""
    pieces = []
    parse = HttpConnection._parse_part
    monkeypatch.setattr(HttpConnection, "_parse_part", lambda self, part: pieces.append(len(part)) or parse(self, part))
    body = b"12345.5," * (1 << 17)
    await client.send(chunked(body, 1 << 18))
    assert (await client.answer())[1]["body"] == body.decode()
    assert len(pieces) < 200


@pytest.mark.parametrize(
    "kind",
    [
        b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n",
        chunked(b"hello", 5, b"/held"),
        chunked(b"a" * 200_000, 200_000, b"/held"),
        chunked(b"a" * 3_000, 3_000, b"/held", b"a: b\r\n"),
        POST.replace(b"/x", b"/held") + b"content-length: 3000\r\n\r\n" + b"a" * 3000,
    ],
    ids=["none", "short", "in pieces", "trailers", "known length"],
)
async def test_requests_before_the_answer_to_another_one_wait_as_bytes(kind):
    app = Held()
    async with served(app) as port, connected(port) as client:
        before = cycles()
        client.writer.write(
            kind + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 100_000 + b"GET /last HTTP/1.1\r\nhost: a\r\n\r\n"
        )
        async with asyncio.timeout(SECONDS):
            await app.begun.wait()
        for _ in range(100):  # the server may read in each turn of the loop
            await asyncio.sleep(0)
        assert cycles() - before < 100
        app.released.set()
        paths = [(await client.answer())[1]["path"] for _ in range(2_000)]
        assert paths == ["/held", *["/"] * 1_999]


async def test_the_departure_of_a_client_is_noticed_while_its_further_requests_wait():
    app = Held()
    async with served(app) as port, connected(port) as client:
        await client.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n" + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 9)
        async with asyncio.timeout(SECONDS):
            await app.begun.wait()
            client.writer.close()
            await app.gone.wait()
        app.released.set()


async def test_a_websocket_does_not_overtake_the_answer_to_an_earlier_request():
    app = Held()
    upgrade = b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    upgrade += b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    async with served(app) as port, connected(port) as client:
        await client.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n" + upgrade)
        async with asyncio.timeout(SECONDS):
            await app.begun.wait()
        app.released.set()
        assert [(await client.answer())[1]["path"] for _ in range(2)] == ["/held", "/x"]


async def test_a_connection_above_the_limit_is_closed_and_the_others_are_served():
    """Idle connections above the limit would take every file of the process, and at the limit every answer."""
    get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    async with served(echo, limit_concurrency=2) as port:
        async with connected(port) as first, connected(port) as second, connected(port) as above:
            assert await above.ended()
            for client in (first, second):
                await client.send(get)
                assert (await client.answer())[0] == 200
        words = []
        while not words:  # until the server has seen the ends of the others
            async with connected(port) as last:
                await last.send(get.replace(b"host: a", b"host: a\r\nconnection: close"))
                with contextlib.suppress(ConnectionError):
                    words = (await last.reader.read()).split()
        assert int(words[1]) == 200


async def test_requests_of_clients_that_have_left_count_against_the_limit():
    begun, left, released = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()

    async def held(scope, receive, send) -> None:
        begun.release()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.release()
        await released.wait()

    async with served(held, limit_concurrency=2) as port, asyncio.timeout(SECONDS):
        for _ in range(3):
            async with connected(port) as gone:
                await gone.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                await begun.acquire()
            await left.acquire()
        async with connected(port) as last:
            await last.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await last.reader.readline()).split()[1] == b"503"
        released.set()


async def test_what_a_request_waits_for_is_cancelled_when_its_client_leaves():
    begins = asyncio.get_running_loop().create_future()

    async def waits(scope, receive, send) -> None:
        scope["state"]["cancel_when_lost"](begins)
        await asyncio.wait((begins,))

    async with served(waits) as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        client.writer.close()
        async with asyncio.timeout(SECONDS):
            await asyncio.wait((begins,))
        assert begins.cancelled()


UNREAD = 32 << 20


class Large:
    """Answers with UNREAD bytes, in one or in parts, and notes what of an answer the client has taken."""

    def __init__(self, part: int) -> None:
        self.part = part
        self.sent = 0
        self.taken: list[bool] = []

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % UNREAD)]})
        for at in range(self.part, UNREAD + 1, self.part):
            await send({"type": "http.response.body", "body": bytes(self.part), "more_body": at < UNREAD})
            self.sent = at
        self.taken.append(await scope["state"]["taken"]())


def with_both_loops(test):
    """The test in an event loop of asyncio, and in one of uvloop, as services have."""

    @pytest.mark.parametrize("make", [asyncio.new_event_loop, loop.new], ids=["asyncio", "service"])
    def run(make, part, ending) -> None:
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(test(part, ending))

    return pytest.mark.parametrize("part", [UNREAD, UNREAD // 128], ids=["whole", "parts"])(
        pytest.mark.parametrize("ending", [b"", b"connection: close\r\n"], ids=["kept", "closed"])(run)
    )


async def ask(port: int, ending: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n" + ending + b"\r\n")
    async with asyncio.timeout(SECONDS):
        await reader.readuntil(b"\r\n\r\n")
    return reader, writer


@with_both_loops
async def test_an_answer_lasts_until_the_client_has_taken_it(part, ending):
    app = Large(part)
    async with served(app) as port:
        reader, writer = await ask(port, ending)
        assert not app.taken
        assert app.sent < UNREAD
        async with asyncio.timeout(SECONDS):
            await reader.readexactly(UNREAD)
        await eventually_async(lambda: app.taken)
        assert app.taken == [False]
        if not ending:
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            async with asyncio.timeout(SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(UNREAD)
            await eventually_async(lambda: len(app.taken) == 2)
        writer.close()


@with_both_loops
async def test_a_client_that_takes_nothing_of_an_answer_loses_the_connection(part, ending):
    app = Large(part)
    async with served(app, http_connection.within(0.2)) as port:
        reader, writer = await ask(port, ending)
        await eventually_async(lambda: app.taken)
        assert app.taken == [True]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(UNREAD)
        writer.close()


@with_both_loops
async def test_the_answer_of_a_departed_client_ends(part, ending):
    app = Large(part)
    async with served(app) as port:
        _, writer = await ask(port, ending)
        writer.transport.abort()
        await eventually_async(lambda: app.taken)
        assert app.taken == [False]
