"""The page at `/` in a real headless Chromium."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.training.planes import PlaneProcess

NODE = Path(__file__).parents[2] / "clients" / "node"
BROWSER = Path(__file__).with_name("browser.mjs")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    process = PlaneProcess(tmp_path_factory.mktemp("page"))
    yield process
    process.stop()


def test_a_person_sees_jobs_curves_and_reports(small: PlaneProcess, tmp_path: Path) -> None:
    if not (NODE / "node_modules" / "playwright-core").is_dir():
        pytest.skip("npm install was not run")
    job = small.job("sleep 1")
    done = small.finished(job)
    assert done["state"] == "succeeded", done
    picture = Path(os.environ.get("PAGE_SCREENSHOT", tmp_path / "page.png"))
    node = shutil.which("node")
    program = [node, str(BROWSER), small.url, small.keys["desk"], job, str(picture)]
    ran = subprocess.run(
        program, capture_output=True, text=True, env={**os.environ, "NODE_FOLDER": str(NODE)}, timeout=250
    )
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout)
    assert shown["faults"] == []
    assert shown["about"].startswith("succeeded · 100 % · cost so far $0.00")
    assert shown["jobs"] == 1
    assert shown["events"][0] == "succeeded"
    assert shown["events"][-1] == "created"
    assert "loss0.5" in shown["measures"]
    assert "model.bin" in shown["artifacts"]
    assert "label 0" in shown["report"]
    assert shown["budgets"] == ["desk 50.00 0.00 0.00 50.00"]
    assert shown["curve"] >= 2
    assert shown["kept"] == 0
    assert picture.stat().st_size > 10_000
