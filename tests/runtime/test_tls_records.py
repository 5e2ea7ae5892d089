"""Records without data and long handshakes end a connection; data does not, in whatever pieces the bytes come."""

import _ssl
import ssl
from collections.abc import Iterator
from ctypes import CDLL, c_int, c_long, c_void_p, create_string_buffer
from pathlib import Path

import pytest

from runtime import tls
from runtime.tls_records import HANDSHAKE_BYTES, MOST_EMPTY
from tests.authority import Authority

if not hasattr(_ssl, "__file__"):
    pytest.skip("this Python has OpenSSL built in, without its symbols", allow_module_level=True)
# Python's ssl sends no KeyUpdate; the OpenSSL behind the module does.
OPENSSL = CDLL(_ssl.__file__)
for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new", "BIO_new", "BIO_s_mem"):
    getattr(OPENSSL, name).restype = c_void_p


class UpdatingClient:
    """A TLS client in memory whose OpenSSL object is at hand."""

    def __init__(self) -> None:
        self._context = c_void_p(OPENSSL.SSL_CTX_new(c_void_p(OPENSSL.TLS_client_method())))
        self._ssl = c_void_p(OPENSSL.SSL_new(self._context))
        method = c_void_p(OPENSSL.BIO_s_mem())
        self._in, self._out = c_void_p(OPENSSL.BIO_new(method)), c_void_p(OPENSSL.BIO_new(method))
        for bio in (self._in, self._out):
            OPENSSL.BIO_ctrl(bio, c_int(130), c_long(-1), None)  # BIO_set_mem_eof_return: empty is not the end
        OPENSSL.SSL_set_bio(self._ssl, self._in, self._out)
        OPENSSL.SSL_set_connect_state(self._ssl)

    def receive(self, data: bytes) -> None:
        OPENSSL.BIO_write(self._in, data, len(data))

    def shake(self) -> bool:
        return int(OPENSSL.SSL_do_handshake(self._ssl)) == 1

    def update_key(self) -> None:
        OPENSSL.SSL_key_update(self._ssl, 0)
        OPENSSL.SSL_do_handshake(self._ssl)

    def write(self, data: bytes) -> None:
        OPENSSL.SSL_write(self._ssl, data, len(data))

    def sent(self) -> bytes:
        data, buffer = b"", create_string_buffer(1 << 16)
        while (size := OPENSSL.BIO_read(self._out, buffer, len(buffer))) > 0:
            data += buffer.raw[:size]
        return data

    def close(self) -> None:
        OPENSSL.SSL_free(self._ssl)
        OPENSSL.SSL_CTX_free(self._context)


class Server:
    def __init__(self, folder: Path) -> None:
        files = Authority("ours").issue(folder, "edge")
        self.incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = tls.context(tls.Files(files["certificate"], files["key"]))
        self.tls = context.wrap_bio(self.incoming, self._outgoing, server_side=True)

    def shake(self, client: UpdatingClient) -> None:
        while not client.shake():
            self.incoming.write(client.sent())
            with pytest.raises(ssl.SSLWantReadError):
                self.tls.do_handshake()
            client.receive(self._outgoing.read())
        self.incoming.write(client.sent())
        self.tls.do_handshake()

    def read(self) -> bytes:
        """All data, until TLS wants more bytes."""
        data = b""
        with pytest.raises(ssl.SSLWantReadError):
            while True:
                data += self.tls.read(7)
        return data


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@pytest.fixture
def client(server: Server) -> Iterator[UpdatingClient]:
    made = UpdatingClient()
    server.shake(made)
    yield made
    made.close()


def test_a_client_may_update_its_keys_a_few_times(server: Server, client: UpdatingClient) -> None:
    for _ in range(MOST_EMPTY // 2):
        client.update_key()
        client.write(b"x")
    server.incoming.write(client.sent())
    assert server.read() == b"x" * (MOST_EMPTY // 2)


@pytest.mark.parametrize("between", [b"", b"x"])
def test_too_many_updates_end_the_connection(between: bytes, server: Server, client: UpdatingClient) -> None:
    for _ in range(MOST_EMPTY + 1):
        client.update_key()
        if between:
            client.write(between)
    sent = client.sent()
    assert len(sent) < 4_000
    server.incoming.write(sent)
    with pytest.raises(ssl.SSLError, match=f"more than {MOST_EMPTY} TLS records without data"):
        while True:
            server.tls.read(16384)


def test_records_with_data_count_for_nothing(server: Server, client: UpdatingClient) -> None:
    messages = [bytes([number % 251]) * (number % 40 + 1) for number in range(20 * MOST_EMPTY)]
    for message in messages:
        client.write(message)
    sent, data = client.sent(), b""
    for start in range(0, len(sent), 11):
        server.incoming.write(sent[start : start + 11])
        data += server.read()
    assert data == b"".join(messages)


def test_a_client_hello_in_tiny_records_ends_the_connection(server: Server) -> None:
    client = UpdatingClient()
    client.shake()
    hello = client.sent()[5:]
    client.close()
    server.incoming.write(b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in hello))
    with pytest.raises(ssl.SSLError, match="records without data"):
        server.tls.do_handshake()


@pytest.mark.parametrize("record", [16_000, 2_000])
def test_a_long_client_hello_ends_the_connection_before_openssl_has_it(record: int, server: Server) -> None:
    header = b"\x16\x03\x01" + record.to_bytes(2)
    body = b"\x01" + (62_000).to_bytes(3) + bytes(62_000)
    for number in range(HANDSHAKE_BYTES // record):
        server.incoming.write(header + body[number * record : (number + 1) * record])
        with pytest.raises(ssl.SSLWantReadError):
            server.tls.do_handshake()
    server.incoming.write(header)
    with pytest.raises(ssl.SSLError, match=f"more than {HANDSHAKE_BYTES} bytes in a handshake"):
        server.tls.do_handshake()


def test_data_after_the_handshake_has_no_limit(server: Server, client: UpdatingClient) -> None:
    client.write(b"x" * 16_000)
    client.write(b"y" * 16_000)
    server.incoming.write(client.sent())
    assert server.read() == b"x" * 16_000 + b"y" * 16_000
