"""GetStatus: the replicas' health by their own probes.

Owns how they are asked and what their answers come to. What a replica probes is its own.
"""

import asyncio

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.calls.request import Request
from gateway.replicas.replica import Replica, ReplicaLostError
from gateway.replicas.router import Router
from market_inference.contract import deadline
from market_inference.contract.errors import DeadlineExceededError
from market_inference.contract.generated import exchange_pb2, inference_pb2

_SECONDS = 6.0
_SHARED_SECONDS = 0.5


class Status:
    """Every replica's health; one that does not answer is unhealthy."""

    def __init__(self, router: Router, version: str) -> None:
        self._router = router
        self._version = version
        self._probes: asyncio.Future[list[inference_pb2.ReplicaStatus]] | None = None
        self._until = 0.0

    async def answer(self, request: Request) -> bytes:
        """A GetStatusResponse. The probes run every engine, so callers within a moment share them."""
        if self._probes is None or deadline.now() >= self._until:
            self._until = deadline.after(_SHARED_SECONDS)
            self._probes = asyncio.gather(*(self._of(request, replica) for replica in self._router.replicas))
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
            request_id=request.request_id,
        ).SerializeToString()

    async def _of(self, request: Request, replica: Replica) -> inference_pb2.ReplicaStatus:
        address = replica.address
        envelope = self._router.envelope(request)
        envelope.status = b""
        until = deadline.after(_SECONDS)
        envelope.timeout_us = deadline.microseconds_left(until, deadline.now())
        try:
            reply: exchange_pb2.Reply = await replica.ask(envelope, 0.0, until)
        except (ReplicaLostError, DeadlineExceededError) as error:
            why = "not connected" if isinstance(error, ReplicaLostError) else "did not answer in time"
            return inference_pb2.ReplicaStatus(name=address, health=inference_pb2.HEALTH_UNHEALTHY, message=why)
        if reply.HasField("error"):
            return inference_pb2.ReplicaStatus(
                name=address, health=inference_pb2.HEALTH_UNHEALTHY, message=reply.error.message
            )
        return inference_pb2.GetStatusResponse.FromString(reply.response).replicas[0]
