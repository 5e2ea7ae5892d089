"""`make chaos`: kill, stop, restart, attack and overload a real fleet under load, and count the effects on callers.

Prints one line per scenario; `--attacks` and `--overload` run these parts alone. `lost` counts requests without an
answer or a refusal, `wrong` counts answers that differ from the answer to a single request. Both must be 0, otherwise
the exit status is 1. Beside each attack of attacks.py runs a victim, another client: the calls of the victim must all
succeed. The latencies before, during and after an event are comparable within one run only.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from benchmarks import attacks
from benchmarks.fleet import Fleet
from benchmarks.pressure import OPTIONS, Pressure, Tally, percentile, pressure, sentiments
from market_inference.contract import keys
from market_inference.contract.methods import METHODS
from runtime.listen import split

CALLERS = 16
CONNECTIONS = 500
BOMBS = 20
# Four million empty series.
BOMB = b"\x0a\x00" * 4_000_000
PHASE = 1000
SETTINGS = {"MARKET_GATEWAY_HEALTH_INTERVAL": "0.5", "MARKET_GATEWAY_HEALTH_TIMEOUT": "1.0"}
# The deadline of requests in the overload; later answers are worthless.
DEADLINE_SECONDS = 1.0
OVERLOAD_SECONDS = 15.0
# A victim beside an attack: closed loops, so that one caller's wait for its own earlier call is no part of the time.
VICTIM_CALLERS = 2
ATTACK_SECONDS = 6.0
ATTACK_HEAD = (
    f"{'attack':24}{'victim':>8}{'failed':>8}{'wrong':>7}{'p50 before':>12}{'p99':>12}{'p50 during':>12}{'p99':>12}"
    f"{'gateway':>11}{'inference':>11}"
)
COUNTS = f"{'sent':>8}{'answered':>10}{'refused':>9}"
HEAD = f"{'scenario':34}{COUNTS}{'lost':>6}{'wrong':>7}{'p99 before':>12}{'during':>9}{'after':>9}"
OVERLOAD_HEAD = (
    f"{'offered':>12}{COUNTS}{'late':>7}{'lost':>6}{'wrong':>7}"
    f"{'goodput':>12}{'of peak':>8}{'p99':>12}{'refusal p50':>12}{'p99':>12}"
)


@dataclass
class Row:
    """The result of a scenario; p99 in seconds."""

    name: str
    tally: Tally
    p99: tuple[float, float, float]
    lost: int = 0

    def __str__(self) -> str:
        tally = self.tally
        times = "".join(f"{1000 * value:{width}.0f} ms" for value, width in zip(self.p99, (9, 6, 6), strict=True))
        counts = f"{tally.sent:8}{tally.answered:10}{tally.refused.total():9}{self.lost:6}{tally.wrong:7}"
        return f"{self.name:34}{counts}{times}"

    @property
    def good(self) -> bool:
        return self.lost == 0 and self.tally.wrong == 0


async def ready(fleet: Fleet, replicas: int) -> None:
    """Wait until the gateway has this number of ready replicas."""
    async with asyncio.timeout(120):
        while await asyncio.to_thread(fleet.metric, "market_gateway_ready_replicas") != replicas:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def under_load(fleet: Fleet, name: str, event: Callable[[Pressure], Awaitable[None]]) -> Row:
    """Run the event in the middle of steady load. No caller may lose a request."""
    await ready(fleet, 2)
    async with pressure(fleet.target, fleet.credentials) as load:
        async with load.callers(CALLERS) as tally:
            await load.more(PHASE)
            began = time.monotonic()
            await event(load)
            ended = time.monotonic()
            await load.more(PHASE)
        phases = (tally.percentile(99, until=began), tally.percentile(99, began, ended), tally.percentile(99, ended))
        return Row(name, tally, phases, lost=tally.lost.total())


async def kill(fleet: Fleet) -> Row:
    async def event(load: Pressure) -> None:
        await asyncio.to_thread(fleet.kill, 0)
        await load.more(PHASE)
        await asyncio.to_thread(fleet.restart, 0)
        await ready(fleet, 2)

    return await under_load(fleet, "kill -9 of one of two replicas", event)


async def roll(fleet: Fleet) -> Row:
    async def event(load: Pressure) -> None:
        for index in range(2):
            status = await asyncio.to_thread(fleet.terminate, index)
            if status:
                raise RuntimeError(f"a drained replica exited with {status}")
            await load.more(PHASE // 4)
            await asyncio.to_thread(fleet.restart, index)
            await ready(fleet, 2)

    return await under_load(fleet, "rolling restart of both replicas", event)


async def hang(fleet: Fleet) -> Row:
    async def event(load: Pressure) -> None:
        fleet.pause(0)
        try:
            await ready(fleet, 1)
            await load.more(PHASE // 4)
        finally:
            fleet.resume(0)
        await ready(fleet, 2)

    return await under_load(fleet, "SIGSTOP of one of two replicas", event)


async def attack(fleet: Fleet) -> Row:
    """Hundreds of silent connections and messages with millions of empty elements, from a client with a key."""

    async def event(load: Pressure) -> None:
        with contextlib.ExitStack() as silent:
            for _ in range(CONNECTIONS):
                silent.enter_context(socket.create_connection(split(fleet.target)))
            async with grpc.aio.insecure_channel(fleet.target, options=OPTIONS) as channel:
                call = channel.unary_unary(METHODS["Predict"].path)
                for _ in range(BOMBS):
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await call(BOMB, metadata=fleet.credentials, timeout=20.0)
            await load.more(PHASE)

    before = resident(fleet)
    row = await under_load(fleet, "", event)
    row.name = f"attack ({resident(fleet) - before:+.0f} MB after it)"
    return row


def resident(fleet: Fleet) -> float:
    """The gateway's resident memory in MB."""
    if fleet.gateway is None:
        raise RuntimeError("the fleet has no gateway")
    return float(psutil.Process(fleet.gateway.pid).memory_info().rss) / 1e6


async def drain(fleet: Fleet) -> Row:
    """SIGTERM to the gateway: accepted requests are answered, later requests are refused."""
    await ready(fleet, 2)
    async with pressure(fleet.target, fleet.credentials) as load:
        async with load.callers(CALLERS) as tally:
            await load.more(PHASE)
            began = time.monotonic()
            gateway, log = fleet.gateway, fleet.log
            if gateway is None:
                raise RuntimeError("the fleet has no gateway")
            stopping = asyncio.create_task(asyncio.to_thread(gateway.stop, 30.0))
            await stopping
        if gateway.returncode:
            raise RuntimeError(f"the drained gateway exited with {gateway.returncode}")
        # Every accepted request has a line in the gateway's log; calls to the closed socket were never accepted.
        codes = [line["code"] for line in map(json.loads, log().splitlines()) if line["event"] == "request"]
        taken = codes.count("OK") - len(load.workload.requests)
        phases = (tally.percentile(99, until=began), tally.percentile(99, began), float("nan"))
        await asyncio.to_thread(fleet.start_gateway)
        tally.refused["never taken"] = tally.lost.total()
        return Row(
            "SIGTERM of the gateway", tally, phases, lost=codes.count("CANCELLED") + max(0, taken - tally.answered)
        )


async def overload(folder: Path) -> list[str]:
    """Goodput at one and three times the saturating rate of a replica, as lines of text."""
    settings = {"MARKET_INFERENCE_FORECAST_MODELS": "vol_rw", "MARKET_INFERENCE_MAX_QUEUED_SECONDS": "1.0"}
    with Fleet(folder, replicas=1, inference=settings) as fleet:
        async with pressure(fleet.target, fleet.credentials, sentiments()) as load, load.callers(CALLERS):
            await load.more(150)  # the cost model learns
        lines = []
        peak = 0.0
        saturating = 0.0
        # The closed loop runs again at the end, to detect a slower machine.
        for factor in (0.0, 1.0, 3.0, 0.0):
            async with pressure(fleet.target, fleet.credentials, sentiments(), timeout=DEADLINE_SECONDS) as load:
                began = time.monotonic()
                if factor:
                    tally = await load.offer(factor * saturating, OVERLOAD_SECONDS)
                else:
                    async with load.callers(CALLERS // 2) as tally:
                        await asyncio.sleep(OVERLOAD_SECONDS)
                goodput = tally.answered / (time.monotonic() - began)
                saturating = saturating or goodput
                peak = max(peak, goodput)
                late = sum(count for what, count in tally.lost.items() if what.startswith("DEADLINE_EXCEEDED"))
                lines.append(
                    f"{'closed loop' if not factor else f'{factor:g}x':>12}{tally.sent:8}{tally.answered:10}"
                    f"{tally.refused.total():9}{late:7}{tally.lost.total() - late:6}{tally.wrong:7}"
                    f"{goodput:10.1f}/s{goodput / peak:8.0%}{1000 * tally.percentile(99):9.0f} ms"
                    f"{1000 * percentile(tally.refusals, 50):9.1f} ms{1000 * percentile(tally.refusals, 99):9.1f} ms"
                )
        return lines


@dataclass
class AttackRow:
    """A victim's calls beside one attack: seconds at the 50th and 99th percentile, and resident memory in MB."""

    name: str
    tally: Tally
    before: tuple[float, float]
    during: tuple[float, float]
    memory: tuple[float, float]

    def __str__(self) -> str:
        times = "".join(f"{1000 * value:9.0f} ms" for value in (*self.before, *self.during))
        failed = self.tally.refused.total() + self.tally.lost.total()
        memory = "".join(f"{value:8.0f} MB" for value in self.memory)
        return f"{self.name:24}{self.tally.answered:8}{failed:8}{self.tally.wrong:7}{times}{memory}"

    @property
    def good(self) -> bool:
        return not (self.tally.refused or self.tally.lost or self.tally.wrong)


async def attacked(folder: Path, transport: str) -> list[AttackRow]:
    """Each attack on a fleet with the shipped default models and two clients with keys of their own."""
    secrets = {}
    with keys.edit(folder / "keys.json") as stored:
        for owner in ("victim", "attacker"):
            secrets[owner], key = keys.issue(owner)
            stored.append(key)
    gateway = {**SETTINGS, "MARKET_GATEWAY_KEYS_FILE": str(folder / "keys.json"), "MARKET_GATEWAY_TRANSPORT": transport}
    rows = []
    with Fleet(folder, inference={}, gateway=gateway, replicas=1) as fleet:
        credentials = (("x-api-key", secrets["victim"]),)
        for name in attacks.ATTACKS:
            await ready(fleet, 1)
            workload = sentiments() if name == "cancelled_texts" else None
            async with pressure(fleet.target, credentials, workload) as load:
                rows.append(await _beside(fleet, name, load, secrets["attacker"]))
            print(rows[-1], flush=True)
    return rows


async def _beside(fleet: Fleet, name: str, load: Pressure, key: str) -> AttackRow:
    """Steady calls of a victim before, during and after an attack."""
    peak = [0.0, 0.0]

    async def watch() -> None:
        while True:
            for at, process in enumerate((fleet.gateway, fleet.replicas[0])):
                if process is not None:
                    peak[at] = max(peak[at], psutil.Process(process.pid).memory_info().rss / 1e6)
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    async with load.callers(VICTIM_CALLERS) as tally:
        await asyncio.sleep(ATTACK_SECONDS / 2)
        began = time.monotonic()
        attacker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.attacks", name),
            *("--target", fleet.target, "--seconds", str(ATTACK_SECONDS)),
            env={**os.environ, "MARKET_INFERENCE_API_KEY": key},
        )
        await attacker.wait()
        ended = time.monotonic()
        await asyncio.sleep(ATTACK_SECONDS / 2)
    watching.cancel()
    before = (tally.percentile(50, until=began), tally.percentile(99, until=began))
    during = (tally.percentile(50, began, ended), tally.percentile(99, began, ended))
    return AttackRow(name, tally, before, during, (peak[0], peak[1]))


async def run(*, only_overload: bool, only_attacks: bool) -> bool:
    rows: list[Row | AttackRow] = []
    if not only_overload:
        for transport in ("grpcio", "native"):
            print(f"attacks by another client, transport {transport}")
            print(ATTACK_HEAD)
            with tempfile.TemporaryDirectory() as folder:
                rows += await attacked(Path(folder), transport)
    if only_attacks:
        return all(row.good for row in rows)
    if not only_overload:
        print(HEAD)
        with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), gateway=SETTINGS) as fleet:
            for scenario in (drain, kill, roll, hang, attack):
                rows.append(await scenario(fleet))
                print(rows[-1], flush=True)
    print(
        f"\noverload: sentiment of 4 texts on one replica, deadline {DEADLINE_SECONDS:g} s; late is a deadline passed"
    )
    print(OVERLOAD_HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for line in await overload(Path(folder)):
            print(line, flush=True)
    return all(row.good for row in rows)


def main() -> None:
    words = sys.argv[1:]
    good = asyncio.run(run(only_overload="--overload" in words, only_attacks="--attacks" in words))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
