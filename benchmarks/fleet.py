"""One gateway and several inference replicas as real processes, to kill, stop and restart.

Owns the processes and addresses. The load is in pressure.py.
"""

import os
import re
import signal
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from benchmarks.memory_limits import MemoryGroup
from benchmarks.ports import HeldPort
from benchmarks.services import START_SECONDS, Services
from market_inference.cli.process import Ready, ServiceProcess

GRACE_SECONDS = 60.0
# One light forecaster and no sentiment model, so that a replica starts within a few seconds.
LIGHT = {"MARKET_INFERENCE_FORECAST_MODELS": "vol_rw", "MARKET_INFERENCE_SENTIMENT_MODELS": ""}


class Fleet:
    """A context manager. `folder` takes logs and development key; settings are environment variables.

    `groups`: control groups with a memory limit by service, for one replica.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 2,
        inference: Mapping[str, str] = LIGHT,
        gateway: Mapping[str, str] | None = None,
        groups: Mapping[str, MemoryGroup] | None = None,
    ) -> None:
        self.folder = folder
        self._services = Services(folder)
        self._groups = groups or {}
        self._inference = dict(inference)
        self._gateway = dict(gateway or {})
        self._count = replicas
        self.replicas: list[ServiceProcess] = []
        self.addresses: list[str] = []
        self._ports: list[HeldPort] = []
        self.gateway: ServiceProcess
        self._ready = Ready("", "")

    @property
    def target(self) -> str:
        return self._ready.listen

    @property
    def key(self) -> str:
        return (self.folder / "development-key").read_text(encoding="utf-8").strip()

    @property
    def credentials(self) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", self.key),)

    def __enter__(self) -> Self:
        try:
            self.addresses = [self._address(number) for number in range(self._count)]
            self.replicas = [self._replica(address) for address in self.addresses]
            for replica in self.replicas:
                replica.wait_ready(START_SECONDS)
            self.start_gateway()
        except BaseException:
            self.close()
            raise
        return self

    def start_gateway(self, **more: str) -> None:
        """(Re)start the gateway in front of all replicas, with `more` settings than the fleet's."""
        settings = {"MARKET_GATEWAY_LISTEN": "127.0.0.1:0", "MARKET_GATEWAY_METRICS_LISTEN": "127.0.0.1:0"}
        settings["MARKET_GATEWAY_REPLICAS"] = ",".join(self.addresses)
        self.gateway = self._start("gateway", {**settings, **self._gateway, **more})
        self._ready = self.gateway.wait_ready(START_SECONDS)

    def _address(self, number: int) -> str:
        """The address of a replica, before and after a restart."""
        self._ports.append(HeldPort())
        return self._ports[-1].address

    def _replica(self, listen: str) -> ServiceProcess:
        settings = {"MARKET_INFERENCE_LISTEN": listen, "MARKET_INFERENCE_METRICS_LISTEN": "127.0.0.1:0"}
        return self._start("inference", {**settings, **self._inference})

    def _start(self, module: str, settings: Mapping[str, str]) -> ServiceProcess:
        process = self._services.spawn(module, settings)
        if module in self._groups:
            self._groups[module].take(process.pid)
        return process

    def kill(self, index: int) -> None:
        """Send SIGKILL."""
        self.replicas[index].kill()

    def terminate(self, index: int) -> int | None:
        """Send SIGTERM and return the exit status."""
        self.replicas[index].stop(GRACE_SECONDS)
        return self.replicas[index].returncode

    def restart(self, index: int) -> None:
        """Start a replica at the address of the ended replica."""
        self.replicas[index] = self._replica(self.addresses[index])
        self.replicas[index].wait_ready(START_SECONDS)

    def pause(self, index: int) -> None:
        """Send SIGSTOP: the process hangs with open connections."""
        os.kill(self.replicas[index].pid, signal.SIGSTOP)

    def resume(self, index: int) -> None:
        os.kill(self.replicas[index].pid, signal.SIGCONT)

    def log(self) -> str:
        """The gateway's log."""
        return self.gateway.log.read_text(encoding="utf-8")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the gateway's samples with this name and these labels."""
        with urllib.request.urlopen(f"http://{self._ready.metrics}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found = (re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line) for line in text.splitlines())
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(m[3]) for m in found if m and m[1] == name and all(w in (m[2] or "") for w in wanted))

    def close(self) -> None:
        self._services.close()
        for port in self._ports:
            port.close()

    def __exit__(self, *_: object) -> None:
        self.close()
