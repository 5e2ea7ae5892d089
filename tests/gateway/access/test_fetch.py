"""A fetch is bounded in time and bytes as a whole, whatever the server does."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.access.fetch import FetchError, fetch

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@contextmanager
def serving(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server on loopback whose every connection `answer` serves until the event is set."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(60)
                    try:
                        answer(connection, over)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/jwks"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            assert not thread.is_alive()


def drip(connection: socket.socket, over: threading.Event, head: bytes) -> None:
    connection.recv(4096)
    connection.sendall(head)
    while not over.wait(0.02):
        connection.sendall(b"x")


def test_a_document_is_fetched():
    def answer(connection, over):
        connection.recv(4096)
        connection.sendall(OK + b"12345")

    with serving(answer) as url:
        assert fetch(url, seconds=60, most_bytes=5) == b"12345"


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"],
    ids=["status line", "headers", "body"],
)  # fmt: skip
def test_a_server_that_drips_is_given_up_after_the_whole_time(head):
    """B10: every byte restarts urllib's own timeout."""
    with (
        serving(lambda connection, over: drip(connection, over, head)) as url,
        pytest.raises(FetchError, match=r"no answer within 0\.2 s"),
    ):
        fetch(url, seconds=0.2, most_bytes=1 << 20)


def test_a_server_that_says_nothing_in_the_tls_handshake_is_given_up():
    def answer(connection, over):
        connection.recv(4096)
        over.wait(60)

    with serving(answer) as url, pytest.raises(FetchError, match="no answer within"):
        fetch(url.replace("http:", "https:"), seconds=0.2, most_bytes=100)


def test_a_document_above_the_limit_is_refused():
    def answer(connection, over):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)

    with serving(answer) as url, pytest.raises(FetchError, match=r"too large \(max 999 bytes\)"):
        fetch(url, seconds=60, most_bytes=999)


@pytest.mark.parametrize(
    "content", [b"garbage\r\n\r\n", b"", b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"]
)  # fmt: skip
def test_an_answer_that_is_no_document_is_an_error(content):
    def answer(connection, over):
        connection.recv(4096)
        connection.sendall(content)

    with serving(answer) as url, pytest.raises(FetchError):
        fetch(url, seconds=60, most_bytes=100)


def test_a_plaintext_server_is_no_https_server():
    def answer(connection, over):
        connection.recv(4096)
        connection.sendall(OK)

    with serving(answer) as url, pytest.raises(FetchError) as refused:
        fetch(url.replace("http:", "https:"), seconds=60, most_bytes=100)
    assert isinstance(refused.value.__cause__.reason, ssl.SSLError)


def test_the_body_of_a_redirect_is_not_read():
    """urllib reads it whole: gigabytes, from a server that answers nothing else."""
    sent = []

    def answer(connection, over):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"x" * (1 << 20))
            sent.append(1 << 20)

    with serving(answer) as url, pytest.raises(FetchError):
        fetch(url, seconds=2, most_bytes=100)
    assert sum(sent) < 64 << 20
