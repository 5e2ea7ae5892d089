"""GetStatus: the health of every replica, by the replica's own probe.

Owns the probes, shared by calls within a moment, and the health of the whole. The content of a probe is the replica's.
"""

import asyncio

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.calls.call import Call
from gateway.calls.request import Answer, envelope
from gateway.replicas.replica import Replica, ReplicaLostError
from gateway.replicas.router import Router
from market_inference.contract import deadline
from market_inference.contract.generated import inference_pb2
from market_inference.contract.generated.exchange_pb2 import Reply

_SECONDS = 6.0
_SHARED_SECONDS = 0.5


class Status:
    """Probes the replicas; a replica that does not answer is unhealthy."""

    def __init__(self, router: Router, version: str) -> None:
        self._router = router
        self._version = version
        self._probes: asyncio.Future[list[inference_pb2.ReplicaStatus]] | None = None
        self._until = 0.0

    async def answer(self, call: Call) -> bytes:
        """A GetStatusResponse in its bytes. A probe runs every engine, so calls within a moment share the probes."""
        if self._probes is None or deadline.now() >= self._until:
            self._until = deadline.after(_SHARED_SECONDS)
            self._probes = asyncio.gather(*(self._of(call, replica) for replica in self._router.replicas))
        replicas = await asyncio.shield(self._probes)
        healthy = [replica.health == inference_pb2.HEALTH_HEALTHY for replica in replicas]
        working = any(replica.health != inference_pb2.HEALTH_UNHEALTHY for replica in replicas)
        health = inference_pb2.HEALTH_DEGRADED if working else inference_pb2.HEALTH_UNHEALTHY
        time = Timestamp()
        time.GetCurrentTime()
        return inference_pb2.GetStatusResponse(
            health=inference_pb2.HEALTH_HEALTHY if healthy and all(healthy) else health,
            time=time,
            version=self._version,
            replicas=replicas,
            request_id=call.request_id,
        ).SerializeToString()

    async def _of(self, call: Call, replica: Replica) -> inference_pb2.ReplicaStatus:
        probe = envelope(call)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            replica.send(probe, 0.0, deadline.after(_SECONDS), answer.set_result, "status")
        except ReplicaLostError as error:
            answer.set_result(error)
        reply = await answer
        if isinstance(reply, Reply) and not reply.HasField("error"):
            return inference_pb2.GetStatusResponse.FromString(reply.response).replicas[0]
        if isinstance(reply, Reply):
            why = reply.error.message
        else:
            why = "not connected" if isinstance(reply, ReplicaLostError) else "did not answer in time"
        return inference_pb2.ReplicaStatus(name=replica.address, health=inference_pb2.HEALTH_UNHEALTHY, message=why)
