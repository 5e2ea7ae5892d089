"""The choice of a replica, and failures of replicas: callers notice no failure that a resend can hide."""

import asyncio

import grpc
import pytest

from gateway.calls import status
from gateway.replicas import outlier
from market_inference.contract import errors
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb


def reply(envelope: exchange_pb2.Envelope, error: errors.ServiceError | None = None) -> exchange_pb2.Reply:
    if error is not None:
        return exchange_pb2.Reply(id=envelope.id, error=error.status(envelope.request_id))
    return exchange_pb2.Reply(id=envelope.id, response=b"")


def broken(envelope):
    return reply(envelope, errors.InternalError())


async def test_a_broken_replica_is_ejected_and_no_caller_sees_its_errors(start, monkeypatch):
    monkeypatch.setattr(outlier, "FIRST_EJECTION_SECONDS", 3600.0)
    async with start(2) as gateway:
        bad = gateway.replicas[0]
        [ejected] = [one for one in gateway.server.router.replicas if one.address == bad.address]
        bad.behave = broken
        for _ in range(60):
            await gateway.predict()
        asked = bad.asked
        assert outlier.FAILURES_IN_A_ROW <= asked <= outlier.FAILURES_IN_A_ROW + 3
        bad.behave = reply
        ejected._try_again()  # as the timer does at the end of the ejection
        async with asyncio.timeout(60):
            while bad.asked == asked:
                await gateway.predict()


async def test_a_request_that_fails_everywhere_is_its_own_fault_and_ejects_nobody(start):
    async with start(2) as gateway:
        for replica in gateway.replicas:
            replica.behave = broken
        for _ in range(2 * outlier.FAILURES_IN_A_ROW):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.predict()
            assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert not any(replica.outlier.ejected for replica in gateway.server.router.replicas)


async def test_a_model_that_one_replica_could_not_load_is_answered_by_another(start):
    async with start(2) as gateway:
        gateway.replicas[0].behave = lambda envelope: reply(envelope, errors.ServiceUnavailableError("not loaded"))
        for _ in range(20):
            await gateway.predict()
        gateway.replicas[1].behave = gateway.replicas[0].behave
        with pytest.raises(grpc.aio.AioRpcError, match="not loaded"):
            await gateway.predict()


async def test_a_request_that_loses_two_replicas_does_not_get_a_third(start):
    async with start(3) as gateway:

        def dies(replica):
            def behave(envelope):
                raise ConnectionResetError

            replica.behave = behave

        for replica in gateway.replicas:
            dies(replica)
        with pytest.raises(grpc.aio.AioRpcError, match="was lost"):
            await gateway.predict()
        assert sum(replica.asked for replica in gateway.replicas) == 2


async def test_replicas_come_and_go_with_the_file_that_names_them(start, tmp_path):
    named = tmp_path / "replicas"
    named.write_text("")
    async with start(0, replicas=f"file:{named}", discovery_interval=0.05) as gateway, start(2) as other:
        addresses = [replica.address for replica in other.replicas]
        named.write_text("\n".join(addresses))
        await gateway.ready(2)
        held = asyncio.Event()

        async def slow(envelope):
            await held.wait()
            return reply(envelope)

        for replica in other.replicas:
            replica.behave = slow
            replica.came.clear()
        call = asyncio.ensure_future(gateway.predict())
        waiting = [asyncio.create_task(replica.came.wait()) for replica in other.replicas]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        busy = next(r for r in other.replicas if r.came.is_set())
        named.write_text(next(r.address for r in other.replicas if r is not busy))
        await gateway.ready(1)
        held.set()
        await call  # what was in flight on the one that left is answered
        for task in waiting:
            task.cancel()
        named.unlink()
        await gateway.predict()  # a discovery that fails leaves what was known
    assert busy.asked == 1


async def test_replicas_that_are_full_refuse_at_once(start):
    async with start(1, max_in_flight_per_replica=1) as gateway:
        gateway.replicas[0].behave = lambda envelope: None
        gateway.replicas[0].came.clear()
        call = gateway.predict()
        await gateway.replicas[0].came.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.predict()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()


async def test_work_in_flight_is_finished_on_a_drain_and_new_work_refused(start):
    async with start(1) as gateway:
        held = asyncio.Event()

        async def slow(envelope):
            await held.wait()
            return reply(
                envelope, errors.UnknownModelError("forecast", "x", []) if envelope.request_id == "bad" else None
            )

        gateway.replicas[0].behave = slow
        calls = [gateway.predict() for _ in range(3)]
        alone = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=4)  # not merged with the others
        bad = gateway.predict(alone, metadata=(*gateway.metadata, ("x-request-id", "bad")))
        await gateway.replicas[0].came.wait()
        while gateway.server.servicer.in_flight < 4:  # noqa: ASYNC110
            await asyncio.sleep(0)
        stopping = asyncio.create_task(gateway.server.stop())
        while not gateway.server.servicer._pipeline.draining:  # noqa: ASYNC110
            await asyncio.sleep(0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.predict()
        # CANCELLED is gRPC's own word for a call that arrives in the instant of the server's GOAWAY.
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        held.set()
        await asyncio.gather(*calls)
        with pytest.raises(grpc.aio.AioRpcError, match="no forecast model"):
            await bad  # an error is an answer too
        await stopping


async def test_mistakes_cost_units_too(start):
    async with start(1, units_per_second=1e-3, burst_seconds=1000) as gateway:
        call = gateway.channel.unary_unary("/market.inference.v1.MarketInferenceService/Predict")
        for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff" * 4_000, metadata=gateway.metadata, timeout=60)
            assert caught.value.code() is code


async def test_status_is_asked_of_a_replica_once_for_many_callers(start, monkeypatch):
    monkeypatch.setattr(status, "_SHARED_SECONDS", 60.0)
    async with start(1) as gateway:
        answers = [gateway.stub.GetStatus(pb.GetStatusRequest(), metadata=gateway.metadata) for _ in range(20)]
        await asyncio.gather(*answers, return_exceptions=True)
        assert gateway.replicas[0].asked == 1


async def test_what_a_client_has_left_is_in_the_trailers_and_refusals_say_when(start):
    async with start(1, units_per_second=1e-3, burst_seconds=50_000, units_per_day=200) as gateway:
        call = gateway.predict()
        await call
        assert dict(await call.trailing_metadata())["x-rate-remaining"] == "7"
        assert dict(await call.trailing_metadata())["x-quota-remaining"] == "157"
        await gateway.predict()
        with pytest.raises(grpc.aio.AioRpcError, match="units a second") as caught:
            await gateway.predict()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert b"RetryInfo" in dict(caught.value.trailing_metadata())["grpc-status-details-bin"]


async def test_replicas_are_reached_directly_whatever_proxy_the_environment_names(start, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with start(1) as gateway:
        await gateway.predict()
