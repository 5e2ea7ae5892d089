"""Every refusal of authentication or authorisation leaves one line, with the public part of the credential alone."""

import asyncio
import logging

import grpc
import pytest

from gateway.calls import completion
from gateway.calls.call import Call
from market_inference.contract import keys, methods
from market_inference.contract.errors import UnauthenticatedError
from market_inference.contract.generated import inference_pb2 as pb
from runtime import logs


def lines(caplog) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if record.name == "gateway.audit"]


async def test_a_wrong_key_is_named_by_its_prefix(start, caplog):
    caplog.set_level(logging.INFO)
    foreign, key = keys.issue("foreign")
    async with start(1) as gateway:
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.predict(metadata=(("x-api-key", foreign), ("x-request-id", "r-1")))
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.predict(metadata=())
        await gateway.predict()
    wrong, none = lines(caplog)
    assert (wrong["credential"], wrong["method"], wrong["request_id"]) == (key.prefix, "Predict", "r-1")
    assert (wrong["reason"], none["credential"]) == ("UNAUTHENTICATED", "")
    assert str(wrong["peer"]).startswith("ipv4:127.0.0.1:")
    assert foreign.split("_", 2)[2] not in str(lines(caplog))


async def test_a_missing_scope_names_the_client(start, caplog, tmp_path, monkeypatch):
    caplog.set_level(logging.INFO)
    issue = keys.issue
    monkeypatch.setattr(keys, "issue", lambda owner: issue(owner, ["status"]))
    async with start(1) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.predict(pb.PredictRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    (line,) = lines(caplog)
    assert (line["reason"], line["client"]) == ("PERMISSION_DENIED", "desk")


class Writer:
    """Counts the lines, and the writes to stderr."""

    def __init__(self) -> None:
        self.lines = self.flushes = 0

    def write(self, line: bytes) -> None:
        self.lines += 1

    def flush(self) -> bool:
        self.flushes += 1
        return True


async def test_the_refusals_of_one_turn_of_the_loop_share_one_write(monkeypatch, caplog):
    """A write for each took a third of the time of a call without a key."""
    caplog.set_level(logging.INFO)
    writer = Writer()
    monkeypatch.setattr(logs, "_writer", writer)
    for place in range(3):
        completion.audit(
            Call(methods.METHODS["Predict"], f"r-{place}", 0.0, 1.0), UnauthenticatedError("no API key"), str
        )
    assert (writer.lines, writer.flushes) == (3, 0)
    await asyncio.sleep(0)
    assert (writer.lines, writer.flushes) == (3, 1)
