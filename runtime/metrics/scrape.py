"""The HTTP server of /metrics, for Prometheus."""

from prometheus_client import CollectorRegistry, start_http_server

from runtime.listen import bind, split


class MetricsServer:
    """Serves a registry at /metrics from a separate thread. Raises runtime.listen.CannotListenError."""

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.address = bind(self._listen, address)

    def _listen(self, address: str) -> int:
        host, port = split(address)
        self._server, _ = start_http_server(port, host, self._registry)
        return int(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
