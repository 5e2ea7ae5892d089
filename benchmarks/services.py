"""Gateways, replicas and echoing replicas as processes, for benchmarks and for tests that kill processes.

Owns start and end of the processes. Every process listens on a free port of 127.0.0.1.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from market_inference import Client
from market_inference.cli.process import Ready, ServiceProcess
from market_inference.contract.state import development_key_file

ANY_PORT = "127.0.0.1:0"
START_SECONDS = 180.0


@dataclass
class Replica:
    """A process that serves Exchange at `address`."""

    service: ServiceProcess
    address: str
    metrics: str


@dataclass
class Gateway:
    """A gateway process with address and key."""

    service: ServiceProcess
    target: str
    metrics: str
    key: str

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.service.pid)


class Services:
    """Processes with a shared state folder; leaving the `with` block ends all processes."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.gateway: Gateway
        self._running: list[ServiceProcess] = []

    def start_replica(self, listen: str = ANY_PORT, **settings: object) -> Replica:
        """Start an inference service; `settings` are fields of inference.config, such as drain_seconds=1."""
        return self._replica("inference", listen, settings)

    def start_local_replica(self) -> Replica:
        """Start an inference service on a Unix socket, as `market-inference serve` does."""
        return self.start_replica(f"unix:{self.state / 'replica'}")

    def start_echo(self) -> Replica:
        """Start a replica that answers every request at once, see benchmarks/echo.py."""
        return self._replica("benchmarks.echo", ANY_PORT, {})

    def _replica(self, module: str, listen: str, settings: dict[str, object]) -> Replica:
        given = {f"MARKET_INFERENCE_{name.upper()}": str(value) for name, value in settings.items()}
        ports = {"MARKET_INFERENCE_LISTEN": listen, "MARKET_INFERENCE_METRICS_LISTEN": ANY_PORT}
        service = self.spawn(module, {**ports, **given})
        ready = service.wait_ready(START_SECONDS)
        return Replica(service, ready.listen, ready.metrics)

    def start_gateway(self, replicas: list[Replica], listen: str = ANY_PORT, **settings: object) -> Gateway:
        """Start a gateway in front of the replicas, and set `self.gateway`."""
        given = {f"MARKET_GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        service = self.spawn(
            "gateway",
            {
                "MARKET_GATEWAY_LISTEN": listen,
                "MARKET_GATEWAY_METRICS_LISTEN": ANY_PORT,
                "MARKET_GATEWAY_REPLICAS": ",".join(replica.address for replica in replicas),
                **given,
            },
        )
        ready = service.wait_ready(START_SECONDS)
        key = (self.state / development_key_file().name).read_text(encoding="utf-8").strip()
        self.gateway = Gateway(service, ready.listen, ready.metrics, key)
        return self.gateway

    def start_edge(self, gateway: Gateway) -> Ready:
        """Start an HTTP edge in front of the gateway."""
        addresses = {"LISTEN": ANY_PORT, "METRICS_LISTEN": ANY_PORT, "GATEWAY": gateway.target}
        service = self.spawn("edge", {f"MARKET_EDGE_{name}": address for name, address in addresses.items()})
        return service.wait_ready(START_SECONDS)

    def wait_loaded(self, *engines: str, seconds: float = 240.0) -> None:
        """Wait until every replica has loaded the default models of these engines (default: all engines)."""
        deadline = time.monotonic() + seconds
        with Client(self.gateway.target, api_key=self.gateway.key) as client:
            while time.monotonic() < deadline:
                found = [engine for replica in client.status().replicas for engine in replica.engines]
                wanted = [engine for engine in found if not engines or engine.name in engines]
                if wanted and all(engine.loaded for engine in wanted):
                    return
                time.sleep(0.1)
        raise TimeoutError(f"the models did not load within {seconds:g} s")

    def spawn(self, module: str, environment: Mapping[str, str]) -> ServiceProcess:
        """Start a module with these variables of the environment."""
        log = self.state / f"{module}-{len(self._running)}.log"
        service = ServiceProcess(
            module, {**environment, "MARKET_INFERENCE_STATE_DIR": str(self.state)}, log, lambda ended: None
        )
        self._running.append(service)
        return service

    def close(self) -> None:
        for service in self._running:
            service.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
