"""Probes: /health/live and /health/ready, and whether this edge should receive requests."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from edge.upstream import Upstream


class Health:
    """Ready while the gateway is connected, until the drain."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.draining = False

    @property
    def ready(self) -> bool:
        return not self.draining and self._upstream.ready


def router(health: Health) -> APIRouter:
    """The two routes, without a key."""
    made = APIRouter(tags=["health"], default_response_class=Response)

    @made.get("/health/live")
    async def live(_: Request) -> Response:
        """200 as long as the process answers."""
        return Response("live\n", media_type="text/plain")

    @made.get("/health/ready")
    async def ready(_: Request) -> Response:
        """200 while the gateway is connected and the edge does not drain, else 503."""
        return Response(
            "ready\n" if health.ready else "not ready\n", 200 if health.ready else 503, media_type="text/plain"
        )

    return made
