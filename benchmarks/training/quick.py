"""A pod whose behaviour the job's name selects: seconds in the place of minutes of training, with the real client."""

import hashlib
import http.client
import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

from training.pod import files
from training.pod.plane import AwayError, Plane, RefusedError, insist

plane = Plane.of_environment()


def main() -> int:
    try:
        started = plane.insist("start", {}, 60)
    except RefusedError as error:
        print(f"refused: {error}", flush=True)
        return 1
    verb, _, rest = started["recipe"]["name"].partition(" ")
    Path("started.json").write_text(json.dumps(started))
    return BEHAVIOURS[verb](rest, started)


def succeed(rest: str, started: dict) -> int:
    data = download()
    assert hashlib.sha256(data).hexdigest() == started["dataset"]["sha256"]
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "model.bin").write_bytes(data[::-1])
    loss = {"name": "loss", "value": 0.5, "step": 1}
    plane.insist("metrics", {"step": 1, "progress": 0.5, "metrics": [loss]}, 60)
    files.hand_over(plane, out, {"loss": 0.5})
    return 0


def download() -> bytes:
    """The dataset, with a fresh token for each try."""
    return insist(once, 60)


def once() -> bytes:
    url = f"{plane.url}/api/training/tokens"
    asked = urllib.request.Request(url, b"", {"Authorization": f"Bearer {plane.token}"})
    try:
        with urllib.request.urlopen(asked) as answer:
            address = answer.read().split()[0].decode()
        with urllib.request.urlopen(address) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise AwayError(str(error)) from None


def sleep(rest: str, started: dict) -> int:
    """Report until so many seconds are over, twice at least, or the plane says stop."""
    end, step = time.monotonic() + float(rest), 0
    while step < 2 or time.monotonic() < end:
        step += 1
        loss = {"name": "loss", "value": 1.0 / step, "step": step}
        if plane.insist("metrics", {"step": step, "metrics": [loss]}, 60)["stop"]:
            return 76
        time.sleep(0.1)
    return succeed(rest, started)


def fail(rest: str, started: dict) -> int:
    return int(rest)


def checkpoint_then_fail(rest: str, started: dict) -> int:
    """The first attempt leaves a checkpoint and fails; the second finds the checkpoint and succeeds."""
    if started["checkpoint"] is not None:
        files.resume(started["checkpoint"], Path("resume"))
        assert Path("resume/state.txt").read_text() == "seven"
        return succeed(rest, started)
    folder = Path("checkpoint")
    folder.mkdir()
    (folder / "state.txt").write_text("seven")
    files.checkpoint(plane, folder, 7)
    return 1


def start_twice(rest: str, started: dict) -> int:
    plane.insist("start", {}, 60)
    return 0


def stubborn(rest: str, started: dict) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
    return 0


def wait(rest: str, started: dict) -> int:
    """Nothing, until the machine is ended."""
    signal.pause()
    return 0


def kill_itself(rest: str, started: dict) -> int:
    """The first attempt dies with its whole machine; the second succeeds."""
    if os.environ["ATTEMPT"] == "1":
        os.killpg(0, signal.SIGKILL)
    return succeed(rest, started)


BEHAVIOURS = {
    "succeed": succeed, "sleep": sleep, "fail": fail, "checkpoint": checkpoint_then_fail, "twice": start_twice,
    "stubborn": stubborn, "die": kill_itself, "wait": wait,
}  # fmt: skip

code = main()
try:
    plane.insist("end", {"exit_code": code}, 60)
except RefusedError as error:
    print(f"end refused: {error}", flush=True)
sys.exit(code)
