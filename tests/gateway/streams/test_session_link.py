"""Sessions in transfer to a replica when the replica is dropped."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb

OPEN = pb.WatchRequest(open=pb.WatchOpen(history=pb.Panel(close=[1.0, 2.0])))


def opened(envelope):
    response = pb.WatchResponse(opened=pb.WatchOpened(request_id=envelope.request_id)).SerializeToString()
    return exchange_pb2.Reply(id=envelope.id, watch=exchange_pb2.WatchReply(response=response))


@pytest.mark.parametrize("carrier", ["grpc", "unix"])
async def test_sessions_are_told_at_once_when_their_replica_is_given_up(start):
    async with start(1) as gateway:
        gateway.replicas[0].behave = opened
        watch = gateway.stub.Watch(metadata=gateway.metadata)
        await watch.write(OPEN)
        assert (await watch.read()).HasField("opened")
        # As after a health check without an answer: the connection stands, and the replica says nothing.
        gateway.server.router.replicas[0]._give_up()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(watch.read(), 60)
        info = error_details_pb2.ErrorInfo()
        assert any(detail.Unpack(info) for detail in rpc_status.from_call(caught.value).details)
        assert info.reason == "SESSION_LOST"
        assert info.domain == "market-inference"
