"""An S3 store that answers other bytes, without an end, in another form, or not at all."""

import hashlib
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from runtime.remote.location import Location
from tests.runtime.remote.answers import Write, answering
from training.plane.bucket import BucketObjects
from training.plane.objects import ObjectsAwayError, at_most, content

DECLARED = {"key": "uploads/x", "bytes": 5, "sha256": hashlib.sha256(b"bytes").hexdigest()}
VERBS: dict[str, Callable[[BucketObjects], object]] = {
    "begin": lambda objects: objects.begin_parts("k"),
    "size": lambda objects: objects.size("k"),
    "read": lambda objects: b"".join(objects.read("k")),
}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], BucketObjects]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    return lambda url: BucketObjects(Location("b", "", url, "us-east-1"))


def test_the_stored_bytes_are_read(bucket: Callable[[str], BucketObjects]) -> None:
    with answering(b"bytes", headers={"Content-Length": "5"}) as server:
        assert content(bucket(server.url), DECLARED) == b"bytes"


@pytest.mark.parametrize("found", [b"other", b"byte", b"bytes and more", b""])
def test_other_bytes_are_never_handed_on(bucket: Callable[[str], BucketObjects], found: bytes) -> None:
    with answering(found) as server, pytest.raises(ObjectsAwayError, match="other bytes"):
        content(bucket(server.url), DECLARED)


def test_an_object_without_an_end_is_read_to_what_was_declared(bucket: Callable[[str], BucketObjects]) -> None:
    def endless(write: Write) -> None:
        while not server.over.is_set():
            write(b"a" * (1 << 16))

    with answering(endless) as server:
        with pytest.raises(ObjectsAwayError, match="other bytes"):
            content(bucket(server.url), DECLARED)
        assert sum(map(len, at_most(bucket(server.url).read("k"), 3 << 20))) <= 5 << 20


@pytest.mark.parametrize(
    ("verb", "headers"),
    [
        ("begin", {}),
        ("size", {}),
        ("size", {"Content-Length": "abc"}),
        ("read", {"Content-Length": "abc"}),
        ("read", {"Last-Modified": "garbage"}),
    ],
)
def test_an_answer_in_another_form_is_a_store_that_is_away(
    bucket: Callable[[str], BucketObjects], verb: str, headers: dict[str, str]
) -> None:
    with answering(b"", headers=headers) as server, pytest.raises(ObjectsAwayError):
        VERBS[verb](bucket(server.url))


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BucketObjects.__init__, "__defaults__", (0.2,))


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("verb", VERBS)
def test_a_store_that_accepts_and_never_answers_is_asked_once(
    bucket: Callable[[str], BucketObjects], verb: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(ObjectsAwayError, match="does not answer: ReadTimeoutError"):
            VERBS[verb](bucket(f"http://127.0.0.1:{server.getsockname()[1]}"))
        server.setblocking(False)
        asked = 0
        with suppress(BlockingIOError):
            while True:
                server.accept()[0].close()
                asked += 1
    assert asked == 1


@pytest.mark.usefixtures("_short")
def test_an_answer_that_stops_in_the_middle_is_a_store_that_is_away(bucket: Callable[[str], BucketObjects]) -> None:
    def stops(write: Write) -> None:
        write(b"<?xml")
        server.over.wait()

    for verb in ("begin", "read"):
        with answering(stops, headers={"Content-Length": "1000"}) as server:
            with pytest.raises(ObjectsAwayError):
                VERBS[verb](bucket(server.url))
            assert len(server.seen) == 1
