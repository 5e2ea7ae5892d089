"""A user's own files never break the product: `market_inference` is the only import name in the user's world.

cli/test_pair_real.py runs `serve`, `demo`, the client and the commands among such files.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# File names that trading code is full of, and that are, or once were, import names of this project.
USERS_FILES = (
    "benchmarks.py",
    "buf.py",
    "client.py",
    "contract.py",
    "gateway/__init__.py",
    "inference.py",
    "market.py",
    "models.py",
    "observability.py",
    "proto.py",
    "runtime.py",
    "training.py",
    "wire.py",
)
CALL = """
import sys
import market_inference

with market_inference.Client(sys.argv[1]) as client:
    print(client.predict([100.0 + at % 7 for at in range(60)], horizon=3).horizon)
"""


class Folder:
    """A working directory, also on PYTHONPATH, with modules that raise on import."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in USERS_FILES:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(f"raise RuntimeError('imported the file {name} of the user')\n")
        rows = "".join(f"{1_700_000_000 + 60 * at},{100 + at % 7}\n" for at in range(110))
        (path / "bars.csv").write_text("time,close\n" + rows)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")},
            "PYTHONPATH": str(path),
            "MARKET_INFERENCE_STATE_DIR": str(path / "state"),
            "MARKET_INFERENCE_DEVICE": "cpu",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, *command: str) -> str:
        """The standard output of a command that must succeed here."""
        ran = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True, check=False, timeout=250
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout


@pytest.mark.slow
def test_the_serverless_worker_ignores_the_users_files(tmp_path: Path) -> None:
    job = {"input": {"action": "predict", "time_series": [100.0 + at % 7 for at in range(60)], "horizon": 3}}
    folder = Folder(tmp_path / "folder of a user")
    said = folder.run(sys.executable, "-m", "serverless", "--test_input", json.dumps(job))
    assert "'forecasts'" in said


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, timeout=250
    )
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_adds_market_inference_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"market_inference"}
    assert {"market_inference/py.typed", "market_inference/client/client.py"} <= set(names)
    assert "market_inference/contract/generated/inference_pb2.py" in names


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """The installed wheel. A package `inference` that somebody else installed is not the service."""
    site = wheel.with_name("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "inference").mkdir()
    (site / "inference" / "__main__.py").write_text("raise RuntimeError('not the service')\n")
    return site


@pytest.mark.parametrize("command", ["serve", "demo", "deploy"])
def test_commands_that_need_a_checkout_say_so_when_only_the_wheel_is_installed(
    site: Path, tmp_path: Path, command: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "market_inference", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "MARKET_INFERENCE_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert ran.returncode == 1
    assert "run from a checkout or an image" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "state").exists()
