"""The gRPC health service of a process, liveness beside readiness.

Owns the name of liveness, and the answer to List. Check, Watch and the statuses are grpcio's.
"""

from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

LIVE = "live"
"""Reports SERVING from the start to the end of the process, drain included. For liveness probes."""


class Health(aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """grpcio's health service with List, which grpcio leaves to an exception with a trace in the log for each call."""

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> health_pb2.HealthListResponse:  # noqa: N802 -- gRPC's name
        """The status of every service of this process."""
        found = {
            name: health_pb2.HealthCheckResponse(status=status) for name, status in tuple(self._server_status.items())
        }
        return health_pb2.HealthListResponse(statuses=found)
