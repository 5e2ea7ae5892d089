"""The HTTP client: explanations of refusals, waits between tries, answers that do not end."""

import json
import time

import pytest

from runtime.remote import http
from tests.runpod.platform import KEY, RefusalError, platform
from tests.runtime.remote.answers import answering


@pytest.fixture
def runpod():
    with platform() as made:
        yield made


def client():
    return http.Http({"Authorization": f"Bearer {KEY}"})


def test_a_refusal_carries_the_explanation_and_never_the_key(runpod):
    runpod.refuse_next = [RefusalError(400, "no instances"), RefusalError(429, "slower", {"Retry-After": "7"})]
    with pytest.raises(http.RemoteError) as refused:
        client().json(f"{runpod.url}/v2/pods")
    assert (refused.value.status, refused.value.detail) == (400, "no instances")
    with pytest.raises(http.TransientError) as limited:
        client().json(f"{runpod.url}/v2/pods")
    assert limited.value.retry_after == 7.0
    assert KEY not in f"{refused.value} {refused.value.__notes__} {limited.value}"


def test_a_lost_answer_and_an_absent_server_are_transient(runpod):
    runpod.lose_answers_to = {"GET /v2/pods"}
    for url in (f"{runpod.url}/v2/pods", "http://127.0.0.1:1/"):
        with pytest.raises(http.TransientError, match="cannot be reached"):
            client().json(url)


def test_retries_wait_for_as_long_as_the_server_asks(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    answers = [http.TransientError("slower", 429, retry_after=seconds) for seconds in (7.0, 10_000.0)]

    def step():
        if answers:
            raise answers.pop(0)
        return "done"

    assert http.retried(step) == "done"
    assert waits == [7.0, http.LONGEST_WAIT_SECONDS]


def test_retries_wait_with_full_jitter_and_end(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def step():
        raise http.TransientError("not now")

    def refuse():
        raise http.RemoteError("never")

    with pytest.raises(http.TransientError):
        http.retried(step, attempts=5, uniform=lambda low, high: high)
    assert waits == [0.5, 1.0, 2.0, 4.0]
    with pytest.raises(http.RemoteError):
        http.retried(refuse)
    assert len(waits) == 4, "what is refused for good is not tried again"


def test_the_key_follows_no_redirect_to_another_server():
    with answering(b"{}") as other, answering(b"", 302, {"Location": other.url}) as moved:
        assert client().json(moved.url) == {}
        with pytest.raises(http.RemoteError, match="302"):  # urllib would make a GET of the POST
            client().json(moved.url, {"name": "pod"})
    assert [one["authorization"] for one in moved.seen] == [f"Bearer {KEY}"] * 2
    [seen] = other.seen
    assert KEY not in str(seen)


@pytest.mark.parametrize("target", ["/", "http://[::bad", "http://a..b/", "ftp://127.0.0.1:1/", "file:///etc/passwd"])
def test_a_redirect_in_a_circle_or_to_no_web_server_is_a_failure_of_the_api(target):
    with answering(b"", 302, {"Location": target}) as server, pytest.raises(http.RemoteError) as caught:
        client().json(server.url)
    assert (caught.value.status == 302) == (not target.startswith("http"))


def test_an_answer_that_is_cut_off_is_no_answer():
    """The number 12 of 1234 would be JSON, too."""
    with answering(b"12", headers={"Content-Length": "4"}) as server, pytest.raises(http.TransientError):
        client().json(server.url)


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_an_end_is_given_up(status, monkeypatch):
    monkeypatch.setattr(http, "MOST_BYTES", 1 << 20)
    sent = []

    def body(write):
        while not server.over.is_set():
            write(b" " * (1 << 16))
            sent.append(1 << 16)

    with answering(body, status) as server, pytest.raises(http.TransientError):
        client().json(server.url)
    assert sum(sent) < 64 << 20  # what the sockets hold


@pytest.mark.parametrize("status", [200, 500])
def test_a_server_that_drips_is_given_up_after_the_whole_time(status):
    def body(write):
        while not server.over.wait(0.02):
            write(b" ")

    with answering(body, status) as server, pytest.raises(http.TransientError):
        http.Http({}, timeout=0.3).json(server.url)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(number):
    with (
        answering(f'{{"cost": {number}}}'.encode()) as server,
        pytest.raises(http.TransientError, match="without JSON"),
    ):
        client().json(server.url)


@pytest.mark.parametrize("detail", [b'{"errors": 5}', b"[" * 200_000, b'{"detail": {"a": 1}}', b"\xff", b"[]", b"5"])
def test_an_explanation_of_any_form_is_no_failure_of_its_own(detail):
    with answering(detail, 400) as server, pytest.raises(http.RemoteError) as refused:
        client().json(server.url)
    assert refused.value.status == 400


@pytest.mark.parametrize("repeated", [f"Bearer {KEY}", KEY, f"{'x' * 495}{KEY}"])
def test_an_explanation_that_repeats_the_key_is_told_without_the_key(repeated):
    answer = {"detail": repeated, "errors": [{"authorization": repeated}]}
    headers = {"WWW-Authenticate": repeated[-200:]}
    with (
        answering(json.dumps(answer).encode(), 400, headers) as server,
        pytest.raises(http.RemoteError) as refused,
    ):
        client().json(server.url)
    told = f"{refused.value} {refused.value.detail} {refused.value.__notes__}"
    assert KEY[:5] not in told
    assert "***" in told


def test_an_explanation_may_name_the_type_of_the_content():
    with (
        answering(b'{"detail": "application/json is not taken here"}', 415) as server,
        pytest.raises(http.RemoteError, match="application/json is not taken here"),
    ):
        client().json(server.url, {}, {"Accept": "text/plain", "content-type": "application/json"})
