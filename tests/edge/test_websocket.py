"""Frames that carry no message: pings, pongs and fragments at a real edge."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

from edge.server import Server
from runtime.listen import split
from tests.edge.servers import edges
from tests.eventually import eventually_async

UPGRADE = (
    b"GET /v1/watch HTTP/1.1\r\nhost: edge\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SECONDS = 60.0


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """An edge whose gateway is away; sessions without a key wait for the opening message."""
    async with edges(gateway="127.0.0.1:9") as start:
        yield await start()


async def opened(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*split(server.address))
    writer.write(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


@pytest.fixture
async def pings_in_turns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counter[int]]:
    """The pings that the edge answered in each turn of the event loop."""
    found, turn, answer = Counter[int](), 0, WebSocketsSansIOProtocol.handle_ping

    def counted(connection: WebSocketsSansIOProtocol) -> None:
        found[turn] += 1
        answer(connection)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "handle_ping", counted)
    counting = asyncio.create_task(count())
    yield found
    counting.cancel()


async def test_pings_of_many_connections_take_turns(server: Server, pings_in_turns: Counter[int]) -> None:
    made = [await opened(server) for _ in range(3)]
    for _, writer in made:
        writer.write(frame(Opcode.PING) * 3000)
    async with asyncio.timeout(SECONDS):
        for reader, _ in made:
            assert await reader.readexactly(6000) == Frame(Opcode.PONG, b"").serialize(mask=False) * 3000
    assert pings_in_turns.total() == 9000
    # 256 bytes have 43 pings: the next ones of one connection, and the first ones of a read of each connection.
    assert max(pings_in_turns.values()) <= 43 * (1 + 2 * len(made))
    for _, writer in made:
        writer.close()


async def test_a_message_of_many_fragments_is_read(server: Server) -> None:
    reader, writer = await opened(server)
    text = json.dumps({"symbol": "A", "closes": list(range(500))}).encode()
    writer.write(frame(Opcode.TEXT, text[:1], fin=False))
    writer.write(b"".join(frame(Opcode.CONT, text[at : at + 1], fin=False) for at in range(1, len(text))))
    writer.write(frame(Opcode.CONT))
    async with asyncio.timeout(SECONDS):
        answer = await reader.read()
    # The answer is about the key that is missing: the edge has read the whole message.
    assert b'"status":401' in answer.replace(b" ", b"")
    writer.close()


async def test_a_client_that_reads_no_pongs_is_not_read_further(server: Server) -> None:
    reader, writer = await opened(server)
    (connection,) = server._http.server_state.connections
    assert isinstance(connection, WebSocketsSansIOProtocol)
    count = 40_000
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # the sockets' buffers take some 3 MB
    writer.write(frame(Opcode.PING, b"x" * 125) * count)
    await eventually_async(lambda: not connection.writable.is_set() and connection.read_paused)
    assert connection.transport.get_write_buffer_size() < 1 << 18
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(SECONDS):
        for _ in range(count):
            assert len(await reader.readexactly(127)) == 127
    writer.close()
