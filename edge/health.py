"""Whether this edge should receive requests."""

from edge.upstream import Upstream


class Health:
    """Ready while the gateway is connected, until the drain."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.draining = False

    @property
    def ready(self) -> bool:
        return not self.draining and self._upstream.ready
