"""`market-inference train demo`: the whole loop on this machine, with a plane of its own that leaves nothing behind.

Owns the steps and the temporary folder. The plane, the machine and the recipe are the real ones.
"""

import shlex
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from market_inference.cli import checkout
from market_inference.cli.commands.output import table
from market_inference.cli.process import ServiceProcess
from market_inference.cli.training.plane import Plane, PlaneError
from market_inference.cli.training.watch import watch

ROWS = 480
RECIPE = b"""
kind: sentiment
name: demo
epochs: 1
steps: 24
batch: 16
split: {validation: 0.2}
checkpoint_seconds: 15
"""
MODEL = "minilm_tuned"
"""The name of the recipe's model in requests."""
NEEDS = ("peft", "sqlalchemy", "torch")
"""Packages of the plane and of the recipe; their extras bring the others."""
_START_SECONDS = 60.0
_CHECK_SECONDS = 60.0
_GRACE_SECONDS = 20.0


def run(console: Console, out: Path | None) -> None:
    """Run the demo; the model goes to `out` where given. Raises ServiceProcessError, PlaneError."""
    if absent := [package for package in NEEDS if find_spec(package) is None]:
        raise PlaneError(
            f"the demo needs {', '.join(absent)}: in the checkout, "
            "pip install -c constraints/runtime.txt -e '.[training,training-pod]'"
        )
    folder = Path(tempfile.mkdtemp(prefix="market-inference-training-"))
    try:
        with _DemoPlane(folder) as plane:
            _walk(plane, folder, console, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print("The plane has ended, and its folder is deleted.")


def _walk(plane: Plane, folder: Path, console: Console, out: Path | None) -> None:
    console.print(f"training plane at {plane.url}", markup=False)
    file = folder / "headlines.csv"
    file.write_bytes(_sample())
    dataset = plane.upload(file, "texts")
    found = _checked(plane, dataset)
    labels = ", ".join(f"{count} of label {label}" for label, count in found["report"]["labels"].items())
    console.print(f"dataset  {ROWS} headlines: {labels}; {found['state']}", markup=False)
    job = plane.run(RECIPE, dataset, idempotency_key="demo")["id"]
    done = watch(plane, job, console)
    if done["state"] != "succeeded":
        log = plane.exchange("GET", f"/jobs/{job}/logs", None, {}).decode(errors="replace")
        raise PlaneError(f"the job {done['state']}: {done.get('reason', '')}\n{log[-2000:]}")
    console.print(_measures(done))
    artifacts = plane.json("GET", f"/jobs/{job}/artifacts")["artifacts"]
    target = out if out is not None else folder / "model"
    for artifact in artifacts:
        plane.download(artifact, target)
        console.print(f"artifact {artifact['name']}  {artifact['bytes']:,} bytes", markup=False)
    if out is not None:
        folder = out.absolute()
        console.print(f"The model is in {folder}. To serve the model beside the embedded one:", markup=False)
        console.print(
            f"  MARKET_INFERENCE_REGISTRY={shlex.quote(str(folder.parent))} market-inference serve", markup=False
        )
        console.print(f'  market-inference sentiment --model {MODEL} "Profit rose sharply"', markup=False)


def _measures(job: Any) -> Any:
    shown = table("on the newest fifth", "measure", "value")
    for name, value in job["result"]["measures"].items():
        shown.add_row(name, f"{value:.4f}" if value % 1 else f"{value:.0f}")
    return shown


def _sample() -> bytes:
    program, environment = checkout.command("training.recipes.sample", {})
    return subprocess.run([*program, str(ROWS)], env=environment, check=True, stdout=subprocess.PIPE).stdout


def _checked(plane: Plane, dataset: str) -> Any:
    found = plane.settled(f"/datasets/{dataset}", "uploading", "checking", seconds=_CHECK_SECONDS)
    if found["state"] != "ready":
        raise PlaneError(f"the dataset is {found['state']}: {found.get('reason', '')}")
    return found


class _DemoPlane:
    """A plane of its own: SQLite, a folder, a key and a port that nobody else uses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        settings = {
            "MARKET_TRAINING_LISTEN": "127.0.0.1:0",
            "MARKET_TRAINING_FOLDER": str(folder),
            "MARKET_TRAINING_PUBLIC_URL": "",
            "MARKET_TRAINING_DATABASE_URL": "",
            "MARKET_TRAINING_OBJECTS": "",
            "MARKET_TRAINING_WORKERS": "1",
            "MARKET_INFERENCE_STATE_DIR": str(folder / "state"),
        }
        self._process = ServiceProcess("training.plane", settings, folder / "plane.log", lambda _: None)

    def __enter__(self) -> Plane:
        try:
            ready = self._process.wait_ready(_START_SECONDS)
            key = (self._folder / "state" / "development-key").read_text(encoding="utf-8").strip()
        except BaseException:
            self._process.kill()
            raise
        return Plane(f"http://{ready.listen}", key)

    def __exit__(self, *_: object) -> None:
        self._process.stop(_GRACE_SECONDS)
