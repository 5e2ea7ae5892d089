"""Every refusal of authentication or authorisation leaves one line, with the public part of the credential alone."""

import logging

import grpc
import pytest

from market_inference.contract import keys
from market_inference.contract.generated import inference_pb2 as pb


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
