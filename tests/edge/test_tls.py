"""TLS of HTTP clients and of the way to the gateway: files that change, and handshakes that never end."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from edge import upstream
from edge.server import ConfigurationError
from runtime import http_server, loop, tls
from runtime.listen import split
from tests.authority import Authority
from tests.edge.servers import Start, edges
from tests.eventually import eventually_async

HALF_HELLO = b"\x16\x03\x01\x02\x00\x01"


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    files = Authority("ours").issue(tmp_path, "edge")
    own = {"tls_certificate": files["certificate"], "tls_key": files["key"]}
    # Nothing listens at the gateway's address.
    async with edges(gateway="127.0.0.1:9", **own) as start:
        yield start


def untrusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def live(address: str, context: ssl.SSLContext) -> bytes:
    """The status line of GET /health/live."""
    reader, writer = await asyncio.open_connection(*split(address), ssl=context)
    writer.write(b"GET /health/live HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line


async def test_half_handshakes_count_as_connections_and_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await start(max_connections=5)
    monkeypatch.setattr(http_server, "HANDSHAKE_SECONDS", 600.0)
    made = [await asyncio.open_connection(*split(server.address)) for _ in range(9)]
    for _, writer in made:
        writer.write(HALF_HELLO)
    await eventually_async(lambda: sum(bool(reader.at_eof() or reader.exception()) for reader, _ in made) == 4)
    assert len(server._http._handshakes) == 5
    for _, writer in made:
        writer.close()
    await eventually_async(lambda: not server._http._handshakes)
    monkeypatch.setattr(http_server, "HANDSHAKE_SECONDS", 0.01)
    reader, writer = await asyncio.open_connection(*split(server.address))
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    monkeypatch.setattr(http_server, "HANDSHAKE_SECONDS", 60.0)
    assert await live(server.address, untrusting()) == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("make", [asyncio.new_event_loop, loop.new], ids=["asyncio", "service"])
def test_clients_are_answered_and_half_handshakes_end_with_the_edge(
    make: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def check() -> None:
        files = Authority("ours").issue(tmp_path, "edge")
        async with edges(gateway="127.0.0.1:9", tls_certificate=files["certificate"], tls_key=files["key"]) as start:
            server = await start()
            lines = await asyncio.gather(*(live(server.address, untrusting()) for _ in range(8)))
            assert set(lines) == {b"HTTP/1.1 200 OK\r\n"}
            await eventually_async(lambda: not server._http._handshakes)
            reader, writer = await asyncio.open_connection(*split(server.address))
            writer.write(HALF_HELLO)
            await eventually_async(lambda: server._http._handshakes)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert not server._http._handshakes
        writer.close()

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(check())


async def test_new_connections_show_the_new_certificate(start: Start, tmp_path: Path) -> None:
    server = await start()
    other = Authority("other")
    trusted = ssl.create_default_context(cadata=other.certificate.decode())
    with pytest.raises(ssl.SSLCertVerificationError):
        await live(server.address, trusted)
    failing = partial(
        server._metrics.registry.get_sample_value, "market_edge_watcher_failing", {"watcher": "certificates"}
    )
    # The last good pair stays in use.
    (tmp_path / "edge.key").write_bytes(b"no key")
    await eventually_async(failing)
    assert await live(server.address, untrusting()) == b"HTTP/1.1 200 OK\r\n"
    other.issue(tmp_path, "edge")
    await eventually_async(failing, lambda value: value == 0)
    assert await live(server.address, trusted) == b"HTTP/1.1 200 OK\r\n"


async def test_files_that_change_between_check_and_use_leave_the_last_good_pair(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start()
    monkeypatch.setattr(tls, "check", lambda _: float("inf"))
    (certificates,) = server._watchers
    (tmp_path / "edge.key").write_bytes(b"no key")
    (tmp_path / "edge.crt").write_bytes(Authority("other").certificate)
    await eventually_async(lambda: certificates.failures > 1)
    assert await live(server.address, untrusting()) == b"HTTP/1.1 200 OK\r\n"


async def test_the_connection_to_the_gateway_follows_a_new_authority(tmp_path: Path) -> None:
    def issue(authority: Authority) -> dict[str, Path]:
        (tmp_path / "ca.crt").write_bytes(authority.certificate)
        authority.issue(tmp_path, "gateway")
        return authority.issue(tmp_path, "edge")

    files = issue(Authority("first"))
    gateway = tls.Files(tmp_path / "gateway.crt", tmp_path / "gateway.key", tmp_path / "ca.crt")

    async def serve(address: str) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        port = tls.add_port(server, gateway, address)
        await server.start()
        return server, port

    server, port = await serve("127.0.0.1:0")
    settings = {"gateway_tls_certificate": files["certificate"], "gateway_tls_key": files["key"]}
    async with edges(gateway=f"127.0.0.1:{port}", gateway_tls_ca=tmp_path / "ca.crt", **settings) as start:
        edge = await start()
        assert edge._upstream.ready
        issue(Authority("second"))
        await server.stop(0)
        server, _ = await serve(f"127.0.0.1:{port}")
        await eventually_async(lambda: edge._upstream.ready)
    await server.stop(0)


async def test_a_connection_that_the_gateway_refuses_takes_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_RENEWAL_SECONDS", 0.5)
    ours = Authority("ours")
    (tmp_path / "ca.crt").write_bytes(ours.certificate)
    files, _ = ours.issue(tmp_path, "edge"), ours.issue(tmp_path, "gateway")
    server = grpc.aio.server()
    certificates = tls.Files(tmp_path / "gateway.crt", tmp_path / "gateway.key", tmp_path / "ca.crt")
    port = tls.add_port(server, certificates, "127.0.0.1:0")
    await server.start()
    settings = {"gateway_tls_certificate": files["certificate"], "gateway_tls_key": files["key"]}
    async with edges(gateway=f"127.0.0.1:{port}", gateway_tls_ca=tmp_path / "ca.crt", **settings) as start:
        edge = await start()
        Authority("other").issue(tmp_path, "edge")
        (watcher,) = edge._watchers
        await eventually_async(lambda: "no connection to the gateway by the new files" in watcher.failure)
        assert edge._upstream.ready
        monkeypatch.setattr(upstream, "_RENEWAL_SECONDS", 60.0)
        ours.issue(tmp_path, "edge")
        await eventually_async(lambda: not watcher.failure)
        assert edge._upstream.ready
    await server.stop(0)


async def test_a_certificate_for_the_gateway_that_does_not_fit_its_key_is_refused_at_the_start(tmp_path: Path) -> None:
    files = Authority("ours").issue(tmp_path, "edge")
    other = Authority("ours").issue(tmp_path, "other")
    pair = {"gateway_tls_certificate": files["certificate"], "gateway_tls_key": other["key"]}
    async with edges(gateway="127.0.0.1:9", **pair) as start:
        with pytest.raises(ConfigurationError, match=r"edge\.crt, other\.key"):
            await start()


async def test_a_certificate_that_cannot_be_used_is_refused_at_the_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "edge.crt").write_bytes(b"no certificate")
    with pytest.raises(ConfigurationError, match=r"edge\.crt"):
        await start()
