"""`make chaos`: kill, stop, restart, attack and overload a real fleet under load, and count the effects on callers.

Prints one line per scenario. With `--limits`, the attacks' gateway and replica run in control groups; a process that
the kernel kills for lack of memory is a failure.
`lost` counts requests without an answer or a refusal, `wrong` counts answers that differ from the answer to a single
request. Both must be 0, otherwise the exit status is 1. Beside each attack of attacks.py runs a victim, another client:
the calls of the victim must all succeed. Attacker, victim and fleet share one machine, so the victim's latency stands
there three times: alone, beside processes that only compute (busy), and beside the attack. Latencies are comparable
within one run only.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from benchmarks import attacks
from benchmarks.fleet import Fleet
from benchmarks.memory_limits import MemoryGroup, NoGroupsError, shipped
from benchmarks.pressure import OPTIONS, Pressure, Tally, indicators, percentile, pressure, sentiments
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
# The victim's calls of these attacks take some 20 ms: as many times as long, so that a p99 is not that of three calls.
LONGER = {"cancelled_texts": 3.0, "long_texts": 3.0}
# The victim of these attacks calls the same engine; the victim of the others asks for forecasts.
VICTIMS = {
    "cancelled_texts": sentiments,
    "long_texts": sentiments,
    "long_windows": indicators,
    "huge_answers": indicators,
}
# Processes that only compute: as many as an attack keeps cores busy, the attacker's and the service's.
BUSY = 2
MOST_SLOWER = 2.0
ATTACK_HEAD = (
    f"{'attack':22}{'victim':>7}{'failed':>7}{'wrong':>6}{'p50 alone':>11}{'p99':>8}{'p50 busy':>11}{'p99':>8}"
    f"{'p50 attack':>11}{'p99':>8}{'x alone':>8}{'x busy':>7}"
    f"{'gateway MB':>11}{'after':>6}{'inference':>10}{'after':>6}"
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
    return float(psutil.Process(fleet.gateway.pid).memory_info().rss) / 1e6


async def drain(fleet: Fleet) -> Row:
    """SIGTERM to the gateway: accepted requests are answered, later requests are refused."""
    await ready(fleet, 2)
    async with pressure(fleet.target, fleet.credentials) as load:
        async with load.callers(CALLERS) as tally:
            await load.more(PHASE)
            began = time.monotonic()
            await asyncio.to_thread(fleet.gateway.stop, 30.0)
        if fleet.gateway.returncode:
            raise RuntimeError(f"the drained gateway exited with {fleet.gateway.returncode}")
        # Every accepted request has a line in the gateway's log; calls to the closed socket were never accepted.
        codes = [line["code"] for line in map(json.loads, fleet.log().splitlines()) if line["event"] == "request"]
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
    """A victim's calls, (p50, p99) in seconds: alone, beside busy processes, beside the attack.

    `memory`: highest and last resident MB of the gateway, then of the replica. `kills`: processes killed by the kernel.
    """

    name: str
    tally: Tally
    alone: tuple[float, float]
    busy: tuple[float, float]
    attack: tuple[float, float]
    memory: tuple[float, float, float, float]
    kills: int = 0

    def __str__(self) -> str:
        pairs = (self.alone, self.busy, self.attack)
        times = "".join(f"{1000 * p50:8.1f} ms{1000 * p99:5.0f} ms" for p50, p99 in pairs)
        ratios = f"{self.attack[1] / self.alone[1]:8.1f}{self.attack[1] / self.busy[1]:7.1f}"
        failed = self.tally.refused.total() + self.tally.lost.total()
        memory = "".join(f"{value:{width}.0f}" for value, width in zip(self.memory, (11, 6, 10, 6), strict=True))
        return f"{self.name:22}{self.tally.answered:7}{failed:7}{self.tally.wrong:6}{times}{ratios}{memory}"

    @property
    def good(self) -> bool:
        return not (self.tally.refused or self.tally.lost or self.tally.wrong or self.kills)

    @property
    def slow(self) -> bool:
        """Whether the p99 is above twice that without the attack, the machine idle or busy."""
        return self.attack[1] > MOST_SLOWER * max(self.alone[1], self.busy[1])


async def attacked(
    folder: Path, transport: str, names: Sequence[str], groups: Mapping[str, MemoryGroup]
) -> list[AttackRow]:
    """Each attack on a fleet with the shipped default models and two clients with keys of their own."""
    secrets = {}
    with keys.edit(folder / "keys.json") as stored:
        for owner in ("victim", "attacker"):
            secrets[owner], key = keys.issue(owner)
            stored.append(key)
    gateway = {**SETTINGS, "MARKET_GATEWAY_KEYS_FILE": str(folder / "keys.json"), "MARKET_GATEWAY_TRANSPORT": transport}
    rows = []
    with Fleet(folder, inference={}, gateway=gateway, replicas=1, groups=groups) as fleet:
        credentials = (("x-api-key", secrets["victim"]),)
        await ready(fleet, 1)
        await attacks.load_models(fleet.target, secrets["victim"])
        for name in names:
            await ready(fleet, 1)
            workload = VICTIMS[name]() if name in VICTIMS else None
            async with pressure(fleet.target, credentials, workload) as load:
                row = await _beside(fleet, name, load, secrets["attacker"])
            row.kills = sum(group.kills for group in groups.values())
            rows.append(row)
            print(row, flush=True)
    slow = ", ".join(row.name for row in rows if row.slow)
    print(f"p99 beside the attack above {MOST_SLOWER:g} times the larger of the two others: {slow or 'none'}")
    return rows


async def _beside(fleet: Fleet, name: str, load: Pressure, key: str) -> AttackRow:
    """Steady calls of a victim before, during and after an attack."""
    processes = [psutil.Process(process.pid) for process in (fleet.gateway, fleet.replicas[0])]
    peak, last = [0.0, 0.0], [0.0, 0.0]

    async def watch() -> None:
        while True:
            for at, process in enumerate(processes):
                last[at] = process.memory_info().rss / 1e6
                peak[at] = max(peak[at], last[at])
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    seconds = ATTACK_SECONDS * LONGER.get(name, 1.0)
    neighbours = [await _prepared(attacks.CONTROL, fleet.target, key, seconds / 2) for _ in range(BUSY)]
    attacker = await _prepared(name, fleet.target, key, seconds)
    phases = []
    async with load.callers(VICTIM_CALLERS) as tally:
        for beside in ([], neighbours, [attacker]):
            began = time.monotonic()
            await asyncio.gather(*map(_begun, beside))
            if not beside:
                await asyncio.sleep(seconds / 2)
            ended = time.monotonic()
            phases.append((tally.percentile(50, began, ended), tally.percentile(99, began, ended)))
        await asyncio.sleep(seconds / 2)
    watching.cancel()
    return AttackRow(name, tally, *phases, (peak[0], last[0], peak[1], last[1]))


async def _prepared(name: str, target: str, key: str, seconds: float) -> asyncio.subprocess.Process:
    """A process of attacks.py that has imported everything: imports would take a core from the victim."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.attacks", name, "--target", target, "--seconds", str(seconds)),
        env={**os.environ, "MARKET_INFERENCE_API_KEY": key},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if process.stdout is None or not await process.stdout.readline():
        raise RuntimeError(f"the process of {name} ended before it began")
    return process


async def _begun(process: asyncio.subprocess.Process) -> None:
    await process.communicate(b"\n")


async def under_limits(folder: Path, transport: str, names: Sequence[str]) -> list[AttackRow]:
    """The attacks on processes under the memory limits of k8s/base; without limits where these cannot be set."""
    with contextlib.ExitStack() as made:
        try:
            groups = {name: made.enter_context(MemoryGroup(name, shipped(name))) for name in ("gateway", "inference")}
        except NoGroupsError as error:
            print(f"NO MEMORY LIMITS, control groups cannot be made here: {error}")
            groups = {}
        rows = await attacked(folder, transport, names, groups)
        for name, group in groups.items():
            print(
                f"memory of the {name}, with files: at most {group.peak >> 20} of {group.limit >> 20} MiB (k8s/base); "
                f"killed for lack of memory: {group.kills}"
            )
    return rows


async def run(*, only_overload: bool, only_attacks: bool, limits: bool, names: Sequence[str]) -> bool:
    rows: list[Row | AttackRow] = []
    if not only_overload:
        for transport in ("grpcio", "native"):
            print(f"attacks by another client, transport {transport}")
            print(ATTACK_HEAD)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder)
                rows += await (under_limits(path, transport, names) if limits else attacked(path, transport, names, {}))
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--overload", action="store_true", help="the overload alone")
    part.add_argument(
        "--attacks", nargs="*", choices=attacks.ATTACKS, metavar="NAME", help="the attacks alone, or these attacks"
    )
    parser.add_argument("--limits", action="store_true", help="attacks under the memory limits of k8s/base")
    options = parser.parse_args()
    good = asyncio.run(
        run(
            only_overload=options.overload,
            only_attacks=options.attacks is not None,
            limits=options.limits,
            names=options.attacks or tuple(attacks.ATTACKS),
        )
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
