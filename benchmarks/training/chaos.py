"""`python -m benchmarks.training.chaos`: jobs on several workers while workers and pods are killed at random.

Prints a table and fails unless every job ended exactly once, no machine is left, and every artifact has its digest.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.training.planes import PlaneProcess, texts
from market_inference.cli.training.plane import PlaneError

FINAL = ("succeeded", "failed", "cancelled", "refused")
MIX = (("succeed", 10), ("sleep 2", 4), ("checkpoint", 3), ("fail 65", 2), ("cancel", 1))


class Killer(threading.Thread):
    """Kills a worker or a pod every now and then, until told to stop."""

    def __init__(self, plane: PlaneProcess, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._plane = plane
        self._chance = chance
        self._ending = threading.Event()
        self.killed: Counter[str] = Counter()

    def run(self) -> None:
        while not self._ending.wait(self._chance.uniform(0.5, 3.5)):
            if self._chance.random() < 0.5:
                self._kill_worker()
            else:
                self._kill_pod()

    def stop(self) -> None:
        self._ending.set()
        self.join()

    def _kill_worker(self) -> None:
        with suppress(psutil.Error, IndexError):
            found = psutil.Process(self._plane.process.pid).children()
            workers = [one for one in found if "training.plane" in " ".join(one.cmdline())]
            self._chance.choice(workers).kill()
            self.killed["workers"] += 1

    def _kill_pod(self) -> None:
        living = [
            lock.with_name("pid")
            for lock in (self._plane.folder / "plane" / "machines").glob("*/lock")
            if not lock.with_name("exit").exists()
        ]
        with suppress(ProcessLookupError, ValueError, OSError, IndexError):
            os.killpg(int(self._chance.choice(living).read_text()), signal.SIGKILL)
            self.killed["pods"] += 1


def insist(step: Any) -> Any:
    """The step's result, again and again while a killed worker has cut the connection."""
    for _ in range(100):
        try:
            return step()
        except (PlaneError, OSError) as error:
            if getattr(error, "status", 0) in range(400, 500):
                raise
            time.sleep(0.2)
    return step()


def submit(plane: PlaneProcess, count: int, chance: random.Random) -> tuple[dict[str, str], str]:
    """Jobs by id, and the dataset's digest."""
    content = texts()
    dataset = insist(lambda: plane.dataset(content))
    names = chance.choices([name for name, _ in MIX], [weight for _, weight in MIX], k=count)
    client = plane.client()
    jobs = {}
    for number, name in enumerate(names):
        wanted = "sleep 30" if name == "cancel" else name
        recipe = f'{{"kind": "sentiment", "name": "{wanted}", "max_attempts": 3}}'.encode()
        jobs[insist(lambda r=recipe, n=number: client.run(r, dataset, f"job-{n}"))["id"]] = name
        if name == "cancel":
            job = list(jobs)[-1]
            insist(lambda j=job: client.json("POST", f"/jobs/{j}/cancel"))
    return jobs, hashlib.sha256(content[::-1]).hexdigest()


def wait(plane: PlaneProcess, jobs: dict[str, str], seconds: float) -> dict[str, str]:
    """The final state of each job; others than final after so many seconds."""
    client, end = plane.client(), time.monotonic() + seconds
    states = dict.fromkeys(jobs, "")
    while time.monotonic() < end and not all(state in FINAL for state in states.values()):
        before = ""
        while page := insist(lambda b=before: client.json("GET", f"/jobs?limit=200&before={b}"))["jobs"]:
            states |= {one["id"]: one["state"] for one in page if one["id"] in states}
            before = page[-1]["id"]
        time.sleep(1.0)
    return states


def faults(plane: PlaneProcess, jobs: dict[str, str], states: dict[str, str], artifact: str) -> list[str]:
    """Faults found after the run: jobs without exactly one end, machines left, artifacts missing."""
    client, found = plane.client(), []
    for job, name in jobs.items():
        kinds = [one["kind"] for one in insist(lambda j=job: client.json("GET", f"/jobs/{j}/events"))["events"]]
        ends = sum(kinds.count(state) for state in FINAL)
        if ends != 1:
            found.append(f"{name} {job} ended {ends} times, is {states[job]}: {kinds}")
        shown = insist(lambda j=job: client.json("GET", f"/jobs/{j}"))
        if any(one["state"] != "gone" for one in shown["attempts"]):
            found.append(f"{job} has an attempt that is not gone")
        if states[job] == "succeeded":
            made = insist(lambda j=job: client.json("GET", f"/jobs/{j}/artifacts"))["artifacts"]
            if artifact not in [one["sha256"] for one in made]:
                found.append(f"{job} succeeded without its artifact")
        elif name in {"succeed", "sleep 2", "checkpoint"}:
            found.append(f"{name} {job} is {states[job]}: {shown.get('reason')}")
    machines = [path.name for path in (plane.folder / "plane" / "machines").iterdir() if alive(path)]
    return [*found, *(f"machine {name} is left" for name in machines)]


def alive(machine: Path) -> bool:
    """Whether a process of the machine's session lives."""
    with suppress(ValueError, OSError):
        session = int((machine / "pid").read_text())
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    return True
    return False


def main() -> None:
    """Run, print, and fail when something should not be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=900.0, help="a job that is not final after this is lost")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mi-chaos-") as folder:
        plane = PlaneProcess(Path(folder), WORKERS=options.workers, MAX_JOBS_PER_OWNER=options.jobs + 1, MAX_MACHINES=8)
        killer = Killer(plane, chance)
        try:
            jobs, artifact = submit(plane, options.jobs, chance)
            killer.start()
            states = wait(plane, jobs, options.seconds)
            killer.stop()
            found = faults(plane, jobs, states, artifact)
        finally:
            plane.stop()
    report(jobs, states, killer.killed, time.monotonic() - began)
    for fault in found:
        print(f"FAULT  {fault}")
    sys.exit(1 if found else 0)


def report(jobs: dict[str, str], states: dict[str, str], killed: Counter[str], seconds: float) -> None:
    """The table."""
    print(f"{'job':<12}{'count':>6}  " + "".join(f"{state:>11}" for state in FINAL) + f"{'other':>8}")
    for name, _ in MIX:
        ended = Counter(states[job] for job, named in jobs.items() if named == name)
        other = sum(count for state, count in ended.items() if state not in FINAL)
        line = "".join(f"{ended[state]:>11}" for state in FINAL)
        print(f"{name:<12}{sum(ended.values()):>6}  {line}{other:>8}")
    print(f"killed by SIGKILL: {killed['workers']} workers, {killed['pods']} pods; {seconds:.0f} s")


if __name__ == "__main__":
    main()
