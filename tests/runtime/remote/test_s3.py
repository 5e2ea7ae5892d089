"""A server that speaks to S3's client without an end. The client beside a real S3 server: tests of its users."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from inference.loading import bucket
from inference.loading.bucket import BucketSource
from inference.loading.source import SourceAwayError
from models.manifest import Manifest
from models.model import ModelUnavailableError
from runtime.remote import s3
from runtime.remote.location import Location
from tests.http_thread import running
from tests.runtime.remote import answers as remote
from tests.runtime.remote.answers import Write

PREFIX = b"<CommonPrefixes><Prefix>model/</Prefix></CommonPrefixes>"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")


@contextmanager
def endless(status: int) -> Iterator[tuple[str, list[int]]]:
    """The address of a server with answers without an end, and the number of bytes sent in each answer."""
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            sent.append(0)
            with suppress(ConnectionError):
                self.wfile.write(b'<?xml version="1.0"?><ListBucketResult>')
                while sent[-1] < 100 * s3.MOST_BYTES:
                    sent[-1] += self.wfile.write(PREFIX * 1000)

        def log_message(self, *_: Any) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", sent


@contextmanager
def answering(status: int, body: Callable[[], bytes]) -> Iterator[str]:
    """The address of a server with short answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = body()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_listing_without_an_end_takes_no_memory_without_an_end(tmp_path: Path) -> None:
    with endless(200) as (address, sent):
        source = BucketSource(Location("b", "", address, "us-east-1"), tmp_path)
        with pytest.raises(SourceAwayError, match="does not answer: ConnectionClosedError"):
            source.listed()
    # One try and two more, each with what the sockets hold.
    assert len(sent) == 3
    assert max(sent) < 4 * s3.MOST_BYTES


def test_a_file_of_unknown_length_is_not_fetched(tmp_path: Path) -> None:
    model = Manifest("sentiment", "any", "m", "1", "Apache-2.0", "float32", {"w": "0" * 64})
    with endless(200) as (address, sent):
        source = BucketSource(Location("b", "", address, "us-east-1"), tmp_path)
        with pytest.raises(ModelUnavailableError, match="does not say how long a file is"):
            source.fetch("m", model)
    assert max(sent) < s3.MOST_BYTES
    assert not [path for path in (tmp_path / "files").iterdir() if path.is_file()]


def test_the_body_of_an_error_is_bounded_where_the_object_would_be_a_stream() -> None:
    with endless(404) as (address, sent), pytest.raises(ConnectionClosedError):
        s3.client(address, "us-east-1").get_object(Bucket="b", Key="k")
    assert max(sent) < 4 * s3.MOST_BYTES


def test_a_short_error_is_read() -> None:
    with answering(404, lambda: b"<Error><Code>NoSuchKey</Code></Error>") as address:
        client = s3.client(address, "us-east-1")
        with pytest.raises(ClientError, match="NoSuchKey"):
            client.get_object(Bucket="b", Key="k")


@pytest.mark.parametrize("repeats", [False, True])
def test_a_request_whose_time_is_over_is_sent_again_where_this_is_wanted(repeats: bool) -> None:
    def silent_once(write: Write) -> None:
        if len(server.seen) == 1:
            server.over.wait()
        write(b"<ok/>")

    with remote.answering(silent_once, headers={"Content-Length": "5"}) as server:
        client = s3.client(server.url, "us-east-1", read_seconds=2.0, repeats_silent=repeats)
        with nullcontext() if repeats else pytest.raises(BotoCoreError, match="Read timeout"):
            client.delete_object(Bucket="b", Key="k")
        assert len(server.seen) == 1 + repeats


@pytest.mark.parametrize("names", [0, 1000])
def test_pages_without_an_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int) -> None:
    monkeypatch.setattr(bucket, "_MOST_FOLDERS", 20)
    pages = 0

    def page() -> bytes:
        nonlocal pages
        pages += 1
        found = b"".join(
            b"<CommonPrefixes><Prefix>m%d-%d/</Prefix></CommonPrefixes>" % (pages, n) for n in range(names)
        )
        return (
            b'<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated>'
            b"<NextContinuationToken>%d</NextContinuationToken>%b</ListBucketResult>" % (pages, found)
        )

    with answering(200, page) as address:
        source = BucketSource(Location("b", "", address, "us-east-1"), tmp_path)
        with pytest.raises(SourceAwayError, match="more than 20 folders"):
            source.listed()
    assert pages <= 22


def test_a_listing_ends_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread lists on for a process that ends."""
    monkeypatch.setattr(bucket, "LIST_SECONDS", 0.0)
    pages = 0

    def page() -> bytes:
        nonlocal pages
        pages += 1
        return (
            b'<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated>'
            b"<NextContinuationToken>%d</NextContinuationToken></ListBucketResult>" % pages
        )

    with answering(200, page) as address:
        source = BucketSource(Location("b", "", address, "us-east-1"), tmp_path)
        with pytest.raises(SourceAwayError, match="did not list its models within 0 s"):
            source.listed()
    assert pages == 1
