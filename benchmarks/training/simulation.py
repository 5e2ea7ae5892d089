"""`python -m benchmarks.training.simulation`: thousands of jobs on a platform full of faults, in simulated time.

Reconciler, reaper, budgets and store are the real ones; platform, pods and clock are simulated. The command fails, and
tells the history of the job, when a pod outlives its job by more than the reaper's period, or when the pods of an
attempt cost more than its reservation and one poll interval. Outages of the platform are subtracted: only the pod's own
watchdog ends a pod then. Outages of the plane are subtracted for pods without a watchdog and for pods that stay after
their end: the watchdogs of the others hold the reservation.
"""

import argparse
import heapq
import itertools
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, insert, select

from training.plane import budget, identifier, jobs, reports, settle, step, sweep
from training.plane.clock import Clock
from training.plane.config import Config
from training.plane.database import Database, Lease
from training.plane.errors import ConflictError
from training.plane.launcher import (
    AnswerLostError,
    Handle,
    LauncherAwayError,
    LaunchError,
    LaunchImpossibleError,
    Made,
    Offer,
    OfferRefusedError,
    PodSpec,
    Presence,
    Seen,
    Wanted,
    fitting,
)
from training.plane.machines import Machines
from training.plane.reconciler import Plane, Reconciler
from training.plane.schema import attempts, datasets, events
from training.plane.schema import jobs as table
from training.plane.services import Services
from training.plane.token import Holder

START = 1_800_000_000.0
TICK_SECONDS = 1.0
REAP_SECONDS = 30.0
HIDDEN_SECONDS = 120.0
# run.sh begins its end so long before the end of the money.
END_SECONDS = 20.0
# The plane looks at each job less often than in earnest: simulated pods live for seconds.
POLL_SECONDS = 5.0
SLACK_SECONDS = POLL_SECONDS + 2 * TICK_SECONDS
OWNERS = 5
WORLD_JOBS = 500
BUDGET_USD = 400.0
CANCELLED = 0.03
OFFERS = (Offer("L4", 0.4), Offer("A5000", 0.3), Offer("H100", 3.0))
LAUNCH_FAULTS = {
    "lost answer": 0.03, "429": 0.02, "400 capacity": 0.05, "402 balance": 0.002, "worker dies": 0.01,
    "unlisted for seconds": 0.05, "lost answer and unlisted for minutes": 0.01,
}  # fmt: skip
POD_FAULTS = {
    "container restarts": 0.03, "host dies": 0.03, "higher price": 0.03, "falls silent": 0.01, "never starts": 0.01,
    "deleted by somebody": 0.01, "ignores its watchdog": 0.01, "does not end itself": 0.05, "recipe fails": 0.05,
}  # fmt: skip


class WorkerDiedError(Exception):
    """The plane's worker dies at this point."""


@dataclass
class Pod:
    """A pod of the platform. Times are simulated."""

    id: str
    name: str
    holder: Holder
    usd_per_hour: float
    made_at: float
    visible_at: float
    seconds: float
    faults: set[str] = field(default_factory=set)
    exited: bool = False
    gone_at: float | None = None

    @property
    def end(self) -> float:
        """When the platform ended the pod."""
        assert self.gone_at is not None
        return self.gone_at

    def cost(self, until: float) -> float:
        return self.usd_per_hour * (until - self.made_at) / 3600.0


class Outages:
    """Random times without an answer: `share` of the seconds begin one, of `shortest` to `longest` seconds."""

    def __init__(self, share: float, shortest: float, longest: float) -> None:
        self._share, self._shortest, self._longest = share, shortest, longest
        self._spans: list[tuple[float, float]] = []

    def draw(self, chance: random.Random, now: float) -> None:
        if not self.at(now) and chance.random() < self._share:
            self._spans.append((now, now + chance.uniform(self._shortest, self._longest)))

    def at(self, now: float) -> bool:
        return bool(self._spans) and now < self._spans[-1][1]

    def seconds(self, since: float, until: float) -> float:
        """Seconds without an answer between two times."""
        return sum(max(0.0, min(until, end) - max(since, start)) for start, end in self._spans)

    def __len__(self) -> int:
        return len(self._spans)


class World:
    """The simulated time, the queue of future actions, and the outages of the platform and of the plane."""

    def __init__(self, chance: random.Random) -> None:
        self.now = START
        self.chance = chance
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.platform = Outages(1 / 600, 10.0, 120.0)
        self.plane = Outages(1 / 1800, 10.0, 240.0)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), what))

    def tick(self) -> None:
        """Advance by one tick and run the due actions."""
        self.now += TICK_SECONDS
        while self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()
        for outages in (self.platform, self.plane):
            outages.draw(self.chance, self.now)


class Platform:
    """A launcher with simulated pods and random faults."""

    def __init__(self, world: World, store: Database) -> None:
        self._world = world
        self._store = store
        self.pods: dict[str, Pod] = {}
        self.past: list[Pod] = []
        self.faults: Counter[str] = Counter()

    def offers(self, wanted: Wanted) -> list[Offer]:
        self._reach()
        return fitting(OFFERS, wanted)

    def launch(self, name: str, offer: Offer, pod: PodSpec) -> Made:
        drawn = self._drawn(LAUNCH_FAULTS)
        if self._world.platform.at(self._world.now) or "429" in drawn:
            raise LaunchError("slower", 10.0)
        if "400 capacity" in drawn:
            raise OfferRefusedError("no instances")
        if "402 balance" in drawn:
            raise LaunchImpossibleError("no balance")
        lost = "lost answer and unlisted for minutes" in drawn
        hidden = self._world.chance.uniform(100, 400) if lost else 0.0
        if "unlisted for seconds" in drawn:
            hidden = max(hidden, self._world.chance.uniform(1, 100))
        made = self._make(name, offer, pod, hidden)
        if lost or "lost answer" in drawn:
            raise AnswerLostError("no answer")
        if "worker dies" in drawn:
            raise WorkerDiedError
        return Made(made.id, made.usd_per_hour)

    def look(self, machine: Handle) -> Seen:
        self._reach()
        if machine.id:
            found = self.pods.get(machine.id)
        else:
            found = min((pod for pod in self._listed() if pod.name == machine.name), key=lambda p: p.id, default=None)
        if found is None:
            return Seen(Presence.ABSENT, hidden_seconds=HIDDEN_SECONDS)
        presence = Presence.EXITED if found.exited else Presence.RUNNING
        return Seen(presence, None, 0.0 if found.exited else found.usd_per_hour, found.id, HIDDEN_SECONDS)

    def stop(self, machine: Handle, *, now: bool) -> None:
        self._reach()
        for pod in list(self.pods.values()):
            if pod.id == machine.id or (not machine.id and pod.name == machine.name):
                self._end(pod)
        if self._world.chance.random() < 0.005:
            self.faults["worker dies after a stop"] += 1
            raise WorkerDiedError

    def mine(self) -> list[Handle]:
        self._reach()
        return [Handle(pod.name, pod.id) for pod in self._listed()]

    def logs(self, machine: Handle, most: int) -> bytes | None:
        return None

    def forget(self, machine: Handle) -> None:
        pass

    def bill(self, machine: Handle, since: float, until: float) -> float | None:
        self._reach()
        if not machine.id:
            return None
        return sum(pod.cost(pod.end) for pod in self.past if pod.id == machine.id)

    def _reach(self) -> None:
        if self._world.platform.at(self._world.now):
            raise LauncherAwayError("outage")

    def _listed(self) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.visible_at <= self._world.now]

    def _drawn(self, faults: dict[str, float]) -> set[str]:
        drawn = {name for name, share in faults.items() if self._world.chance.random() < share}
        self.faults.update(drawn)
        return drawn

    def _make(self, name: str, offer: Offer, spec: PodSpec, hidden: float) -> Pod:
        world, given = self._world, spec.environment
        faults = self._drawn(POD_FAULTS)
        factor = 1.5 if "higher price" in faults else 1.0
        holder = Holder(given["OWNER"], given["JOB_ID"], int(given["ATTEMPT"]))
        pod = Pod(f"pod{len(self.past) + len(self.pods):06d}", name, holder, offer.usd_per_hour * factor, world.now,
                  world.now + hidden, float(given["DEADLINE_SECONDS"]), faults)  # fmt: skip
        self.pods[pod.id] = pod
        if "never starts" not in faults:
            world.at(world.now + world.chance.uniform(1, 30), lambda: self._start(pod))
        return pod

    def _start(self, pod: Pod) -> None:
        paid: list[float | None] = []

        def start(connection: Connection, holder: Holder, now: float) -> None:
            reports.start(connection, holder, now)
            paid.append(reports.paid_seconds(connection, holder, now))

        if pod.gone_at is not None or self._later(lambda: self._start(pod)) or not self._report(pod, start):
            return
        world, run = self._world, self._world.chance.expovariate(1 / 25.0) + 1.0
        if "ignores its watchdog" in pod.faults:
            run = 1e9
        else:
            left = pod.seconds if paid[0] is None else min(pod.seconds, paid[0] - END_SECONDS)
            world.at(world.now + left, lambda: self._finish(pod, 77))
        for fault, what in (
            ("container restarts", self._restart), ("host dies", self._die), ("deleted by somebody", self._end),
        ):  # fmt: skip
            if fault in pod.faults:
                world.at(world.now + world.chance.uniform(0, run), lambda what=what: what(pod))
        if "falls silent" not in pod.faults:
            world.at(world.now + 60.0, lambda: self._beat(pod))
            world.at(world.now + run, lambda: self._finish(pod, 1 if "recipe fails" in pod.faults else 0))

    def _beat(self, pod: Pod) -> None:
        if pod.gone_at is not None or pod.exited or self._later(lambda: self._beat(pod)):
            return
        found: list[Any] = []
        if self._report(pod, lambda c, h, n: found.append(reports.report(c, h, reports.Report(), n))):
            if found[0].stop and "ignores its watchdog" not in pod.faults:
                self._finish(pod, 76)
            else:
                self._world.at(self._world.now + 60.0, lambda: self._beat(pod))

    def _finish(self, pod: Pod, code: int) -> None:
        if pod.gone_at is not None or pod.exited:
            return
        if self._world.plane.at(self._world.now):
            if code != 77:  # the end is told to a plane that is there; the watchdog tries only once
                self._later(lambda: self._finish(pod, code))
            elif "does not end itself" not in pod.faults:
                self._world.at(self._world.now + END_SECONDS, lambda: self._end(pod))
            return
        if code == 0:
            self._report(pod, lambda c, h, n: reports.result(c, h, {}, (), n))
        self._report(pod, lambda c, h, n: reports.end(c, h, code, 0, "", n))
        if "does not end itself" not in pod.faults:
            self._world.at(self._world.now + TICK_SECONDS, lambda: self._end(pod))

    def _restart(self, pod: Pod) -> None:
        """The container begins again: the plane refuses the second start."""
        if pod.gone_at is None and not pod.exited and not self._later(lambda: self._restart(pod)):
            self._report(pod, reports.start)

    def _die(self, pod: Pod) -> None:
        pod.exited = True

    def _end(self, pod: Pod) -> None:
        if self.pods.pop(pod.id, None) is not None:
            pod.gone_at = self._world.now
            self.past.append(pod)

    def _later(self, what: Callable[[], None]) -> bool:
        """Whether the plane is away; the pod tries again later."""
        if away := self._world.plane.at(self._world.now):
            self._world.at(self._world.now + 5.0, what)
        return away

    def _report(self, pod: Pod, verb: Callable[..., Any]) -> bool:
        """Whether the plane took the report."""
        try:
            with self._store.begin() as connection:
                verb(connection, pod.holder, self._world.now)
        except ConflictError:
            return False
        return True


class OwnedReconciler(Reconciler):
    """Adds the owner to the environment of a pod, in the place of the token of a real pod, and keeps ends of jobs."""

    final_at: dict[str, float]

    def _do(self, lease: Lease, job: Any, attempt: Any, seen: Seen, action: step.Action) -> float | None:
        pause = super()._do(lease, job, attempt, seen, action)
        if isinstance(action, step.Finish):
            self.final_at[job.id] = self._clock.now()
        return pause

    def _pod(self, job: Any, attempt: Any, token: str, agreed: Any) -> PodSpec:
        made = super()._pod(job, attempt, token, agreed)
        return PodSpec({**made.environment, "OWNER": job.owner}, made.seconds, made.run_seconds, made.wanted)


@dataclass
class Outcome:
    """States of the jobs, and the largest excesses in seconds."""

    states: Counter[str]
    causes: Counter[str]
    faults: Counter[str]
    pods: int
    simulated_hours: float
    outlived_seconds: float
    overspent_seconds: float
    overspent_owners: list[str]
    orphans: int
    billed_usd: float
    charged_usd: float
    longest: list[str]
    """What happened to the job whose pod outlived the job by most, and to the job that overspent by most."""
    dearest: list[str]


def simulate(count: int, seed: int, folder: Path) -> Outcome:
    """Run `count` jobs to their end."""
    before, step.POLL_SECONDS = step.POLL_SECONDS, POLL_SECONDS
    try:
        return _simulate(count, seed, folder)
    finally:
        step.POLL_SECONDS = before


def _simulate(count: int, seed: int, folder: Path) -> Outcome:
    world = World(random.Random(seed))
    store = Database(f"sqlite:///{folder}/store.db")
    store.migrate()
    platform = Platform(world, store)
    clock = Clock(wall=lambda: world.now, monotonic=lambda: world.now)
    machines = Machines("mi-sim", {"runpod": platform})
    none: Any = SimpleNamespace()
    services = Services(Config(folder=folder, budget_usd=BUDGET_USD), store, none, none, none, machines, clock)
    workers = itertools.count()

    def worker() -> Reconciler:
        plane = Plane("http://127.0.0.1:1", 10_000, BUDGET_USD)
        made = OwnedReconciler(store, machines, plane, f"w{next(workers)}", clock)
        made.final_at = final_at
        return made

    final_at: dict[str, float] = {}
    hands, waiting, dataset, reaped_at = worker(), count, _dataset(store), START
    while len(final_at) < count or platform.pods:
        world.tick()
        arriving = min(waiting, world.chance.randint(0, 4))
        for _ in range(arriving):
            _job(store, world, dataset)
        waiting -= arriving
        if world.plane.at(world.now):
            continue
        try:
            while hands.turn():
                pass
        except WorkerDiedError:
            hands = worker()
        if world.now >= reaped_at + REAP_SECONDS:
            reaped_at = world.now
            with suppress(WorkerDiedError, LauncherAwayError):
                sweep.machines_stray(services)
        if world.now % 600 == 0:
            settle.bills(services)
        assert world.now < START + 40 * 86_400, "the simulation does not end"
    world.now += 2 * 86_400  # every bill is complete
    for _ in range(count // 20 + 10):
        settle.bills(services)
    found = _outcome(store, world, platform, final_at)
    store.close()
    return found


def _dataset(store: Database) -> str:
    made = identifier.new()
    with store.begin() as connection:
        row = {"id": made, "owner": "o", "name": "r", "kind": "texts", "state": "ready", "key": "k", "sha256": "0" * 64}
        connection.execute(insert(datasets).values(**row, bytes=1, parts=1, created_at=START))
    return made


def _job(store: Database, world: World, dataset: str) -> None:
    recipe = {"kind": "sentiment", "machine": {"gpus": ["L4", "A5000"] if world.chance.random() < 0.5 else []}}
    new = jobs.NewJob(
        owner=f"owner{world.chance.randrange(OWNERS)}", name="s", kind="sentiment", dataset=dataset, recipe=recipe,
        text=json.dumps(recipe), launcher="runpod", max_attempts=2, max_seconds=world.chance.choice([120.0, 600.0]),
        max_usd=world.chance.choice([None, 0.1]),
    )  # fmt: skip
    with store.begin() as connection:
        made, _ = jobs.create(connection, new, world.now)
    if world.chance.random() < CANCELLED:
        world.at(world.now + world.chance.uniform(0, 60), lambda: _cancel(store, world, new.owner, made))


def _cancel(store: Database, world: World, owner: str, job: str) -> None:
    with store.begin() as connection:
        jobs.cancel(connection, owner, job, world.now)


def _outcome(store: Database, world: World, platform: Platform, final_at: dict[str, float]) -> Outcome:
    with store.read() as connection:
        joined = select(attempts, table.c.owner).join(table, table.c.id == attempts.c.job)
        tried = {row.name: row for row in connection.execute(joined)}
        states = Counter(connection.execute(select(table.c.state)).scalars())
        orphans = connection.execute(select(events.c.seq).where(events.c.kind == "orphan")).all()
        owners = sorted({row.owner for row in tried.values()})
        accounts = {owner: budget.account(connection, owner, START, BUDGET_USD) for owner in owners}
    costs: Counter[str] = Counter()
    outlived, overspent = dict.fromkeys(final_at, 0.0), dict.fromkeys(final_at, 0.0)
    pods: dict[str, list[Pod]] = defaultdict(list)
    for pod in platform.past:
        pods[pod.name].append(pod)
        row = tried[pod.name]
        since = max(final_at[row.job], pod.visible_at)
        away = world.platform.seconds(since, pod.end) + world.plane.seconds(since, pod.end)
        outlived[row.job] = max(outlived[row.job], pod.end - since - away)
        costs[row.owner] += pod.cost(pod.end)
    for name, made in pods.items():
        row = tried[name]
        usd = sum(pod.cost(pod.end) - pod.usd_per_hour * _excused(world, pod, row) / 3600.0 for pod in made)
        seconds = (usd - row.usd_reserved) / max(pod.usd_per_hour for pod in made) * 3600.0
        overspent[row.job] = max(overspent[row.job], seconds)
    longest, dearest = max(outlived, key=outlived.__getitem__), max(overspent, key=overspent.__getitem__)
    with store.read() as connection:
        told = {job: _told(connection, platform, job) for job in (longest, dearest)}
    slack = len(platform.past) * SLACK_SECONDS * max(offer.usd_per_hour for offer in OFFERS) / 3600.0
    broke = [owner for owner in owners if costs[owner] > BUDGET_USD + slack or accounts[owner].reserved > 1e-6]
    return Outcome(
        states=states,
        causes=Counter(row.cause or "none" for row in tried.values()),
        faults=platform.faults,
        pods=len(platform.past),
        simulated_hours=(world.now - START - 2 * 86_400) / 3600.0,
        outlived_seconds=outlived[longest],
        overspent_seconds=overspent[dearest],
        overspent_owners=broke,
        orphans=len(orphans),
        billed_usd=sum(costs.values()),
        charged_usd=sum(account.charged for account in accounts.values()),
        longest=told[longest],
        dearest=told[dearest],
    )


def _excused(world: World, pod: Pod, row: Any) -> float:
    """Seconds of a pod that no plane can shorten: outages when the pod should end, and a long absence from the list."""
    if pod.id == row.handle:
        since = pod.made_at + (row.usd_reserved - row.usd_doubted) / pod.usd_per_hour * 3600.0
        watched = not pod.faults & {"ignores its watchdog", "does not end itself", "never starts", "host dies"}
        unlisted = 0.0
    else:
        since, watched, unlisted = pod.visible_at, False, max(0.0, pod.visible_at - pod.made_at - HIDDEN_SECONDS)
    away = world.platform.seconds(since, pod.end)
    return unlisted + away + (0.0 if watched else world.plane.seconds(since, pod.end))


def _told(connection: Connection, platform: Platform, job: str) -> list[str]:
    """What happened to a job, by seconds since its beginning: the plane's events, and the pods."""
    rows = connection.execute(select(events).where(events.c.job == job).order_by(events.c.seq)).all()
    began = rows[0].at
    said = [(row.at, f"attempt {row.attempt} {row.kind} {json.dumps(row.data)}") for row in rows]
    for pod in platform.past:
        if pod.holder.job == job:
            what = f"{pod.id}, {pod.usd_per_hour} USD per hour, {sorted(pod.faults)}"
            said += [
                (pod.made_at, f"{what}: made"),
                (pod.visible_at, f"{pod.id}: listed"),
                (pod.end, f"{pod.id}: gone"),
            ]
    return [f"{at - began:8.0f} {text}" for at, text in sorted(said, key=lambda one: one[0])]


def worlds(count: int, seed: int) -> list[tuple[int, int]]:
    """Jobs and seed of each world: the jobs of one world share owners, budgets and outages."""
    sizes = [min(WORLD_JOBS, count - start) for start in range(0, count, WORLD_JOBS)]
    return [(size, 1000 * seed + place) for place, size in enumerate(sizes)]


def _world(given: tuple[int, int]) -> Outcome:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        return simulate(*given, Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="worlds at once")
    given = parser.parse_args()
    began = time.monotonic()
    asked = worlds(given.jobs, given.seed)
    all_found = []
    with ProcessPoolExecutor(given.workers) as pool:
        for (jobs_made, _), found in zip(asked, pool.map(_world, asked), strict=True):
            all_found.append(found)
            print(
                f"{jobs_made} jobs: {found.outlived_seconds:.0f} s after the job, {found.overspent_seconds:.1f} s over",
                f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True,
            )  # fmt: skip
    for name in ("states", "causes", "faults"):
        counted = sum((getattr(one, name) for one in all_found), Counter())
        print(f"{name}: " + ", ".join(f"{key} {number}" for key, number in sorted(counted.items())))
    pods, orphans, hours, billed, charged = (
        sum(getattr(one, name) for one in all_found)
        for name in ("pods", "orphans", "simulated_hours", "billed_usd", "charged_usd")
    )
    longest = max(all_found, key=lambda one: one.outlived_seconds)
    dearest = max(all_found, key=lambda one: one.overspent_seconds)
    print(f"{pods} pods, {orphans} orphans ended, {hours:.1f} simulated hours")
    print(f"longest life of a pod after its job: {longest.outlived_seconds:.0f} s (at most {REAP_SECONDS:.0f})")
    print(f"most spent beyond a reservation: {dearest.overspent_seconds:.1f} s (at most {SLACK_SECONDS:.0f})")
    print(f"cost {billed:.2f} USD, charged {charged:.2f} USD after the bills")
    print(f"{time.monotonic() - began:.0f} s")
    good = longest.outlived_seconds <= REAP_SECONDS and dearest.overspent_seconds <= SLACK_SECONDS
    if longest.outlived_seconds > REAP_SECONDS:
        print("the job whose pod lived longest after its end:", *longest.longest, sep="\n")
    if dearest.overspent_seconds > SLACK_SECONDS:
        print("the job that cost most beyond its reservation:", *dearest.dearest, sep="\n")
    overspent = sorted(owner for one in all_found for owner in one.overspent_owners)
    if overspent:
        print(f"owners beyond their budgets: {', '.join(overspent)}")
    return 0 if good and not overspent else 1


if __name__ == "__main__":
    sys.exit(main())
