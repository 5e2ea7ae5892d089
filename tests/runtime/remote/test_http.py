"""The HTTP client: explanations of refusals, waits between tries, answers that do not end."""

import time

import pytest

from runtime.remote import http
from tests.runpod.platform import KEY, RefusalError, platform


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
