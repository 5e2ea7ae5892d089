"""Reflection is open to strangers, within bounds."""

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc

from gateway.access import reflection
from gateway.access.reflection import BURST, MOST_BYTES, MOST_STREAMS, Reflection, address_of
from market_inference.contract.methods import SERVICE
from tests.eventually import eventually_async

LIST = pb.ServerReflectionRequest(list_services="")
CONTRACT = pb.ServerReflectionRequest(file_containing_symbol=SERVICE.full_name)


@pytest.fixture
async def served():
    server = grpc.aio.server()
    times = [0.0]
    reflecting = Reflection((SERVICE.full_name,), lambda: times[0])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo, reflecting, times
    await server.stop(None)


async def code_of(call) -> grpc.StatusCode:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_tool_reads_the_contract(served):
    ask, _, _ = served
    answers = [answer async for answer in ask(iter([LIST, CONTRACT]))]
    assert answers[0].list_services_response.service[0].name == SERVICE.full_name
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_an_address_that_asks_without_end_is_refused_until_some_time_has_passed(served):
    ask, _, times = served
    assert await code_of(ask(iter([LIST] * (int(BURST) + 1)))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await code_of(ask(iter([LIST]))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    times[0] = 10.0
    assert await code_of(ask(iter([LIST] * 50))) is grpc.StatusCode.OK


async def test_a_large_request_is_not_sent_back(served):
    ask, _, _ = served
    large = pb.ServerReflectionRequest(file_by_filename="x" * MOST_BYTES)
    assert await code_of(ask(iter([large]))) is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_are_bounded_in_number_and_time(served, monkeypatch):
    ask, reflecting, _ = served
    reflecting._streams = MOST_STREAMS
    assert await code_of(ask(iter([LIST]))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    reflecting._streams = 0
    monkeypatch.setattr(reflection, "STREAM_SECONDS", 0.05)
    assert await ask().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually_async(lambda: reflecting._streams == 0)


def test_the_ports_of_an_address_count_together():
    assert address_of("ipv4:10.0.0.1:5000") == "ipv4:10.0.0.1"
    assert address_of("ipv6:%5B::1%5D:5000") == "ipv6:%5B::1%5D"
    assert address_of("unix:/run/socket") == "unix:/run/socket"
